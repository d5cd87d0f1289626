package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"duet/appliance/membership"
	"duet/appliance/postgres/decide"
)

// Rule lets users of the site in. Method is scram or cert; there is no other.
type Rule struct {
	Networks  []string
	Users     []string
	Databases []string
	Method    string
}

// The names of duet's own objects.
const (
	superuser       = "postgres"
	replicationUser = "duet_repl"
	applicationName = "duet_" // and the letter of the node
)

func nodeName(n membership.Node) string { return applicationName + n.String() }

// owned are the settings on the command line: nothing beats it, ALTER SYSTEM included (PostgreSQL manual 20.1.4). They
// need a restart, which is duet's alone.
func (c *Config) owned() []string {
	pairs := []string{
		"config_file=" + c.file("postgresql.conf"), "hba_file=" + c.file("pg_hba.conf"), "ident_file=" + c.file("pg_ident.conf"),
		"unix_socket_directories=" + c.Run, "port=" + strconv.Itoa(c.Port), "listen_addresses=" + c.Listen,
		"fsync=on", "full_page_writes=on", "data_sync_retry=off", "restart_after_crash=off", "wal_level=replica", "hot_standby=on",
		"wal_log_hints=on", "max_wal_senders=10", "max_replication_slots=10", "archive_mode=off", "track_commit_timestamp=off",
	}
	args := make([]string, 0, 2*len(pairs))
	for _, p := range pairs {
		args = append(args, "-c", p)
	}
	return args
}

func (c *Config) file(name string) string { return filepath.Join(c.Run, name) }

// duetConf is what a reload changes. The timeouts make a dead peer known in 3 s (the defaults take a minute and more);
// max_standby_streaming_delay bounds the replay that a promotion waits for.
func (c *Config) duetConf(names decide.Names) string {
	standby := ""
	if names == decide.NamesPeer {
		standby = nodeName(c.Self.Peer())
	}
	conf := [][2]string{
		{"synchronous_standby_names", standby},
		{"primary_conninfo", c.conninfo("")},
		{"primary_slot_name", nodeName(c.Self)},
		{"recovery_target_timeline", "latest"},
		{"wal_sender_timeout", "3s"},
		{"wal_receiver_timeout", "3s"},
		{"wal_receiver_status_interval", "1s"},
		{"wal_retrieve_retry_interval", "500ms"},
		{"tcp_keepalives_idle", "1"},
		{"tcp_keepalives_interval", "1"},
		{"tcp_keepalives_count", "3"},
		{"tcp_user_timeout", "3s"},
		{"wal_keep_size", strconv.FormatInt(c.KeepMiB, 10) + "MB"},
		{"max_slot_wal_keep_size", strconv.FormatInt(c.SlotMiB, 10) + "MB"},
		{"max_standby_streaming_delay", "5s"},
		{"hot_standby_feedback", "on"},
		{"superuser_reserved_connections", "5"},
		{"password_encryption", "scram-sha-256"},
		{"log_destination", "stderr"},
		{"logging_collector", "off"},
		{"log_line_prefix", "%m [%p] %q%u@%d "},
		{"lc_messages", "C"},
	}
	out := ""
	for _, kv := range conf {
		out += kv[0] + " = " + quote(kv[1]) + "\n"
	}
	return out
}

// conninfo is how this node's tools and receiver reach the peer. The password is in a file of its own.
func (c *Config) conninfo(database string) string {
	text := fmt.Sprintf("host=%s port=%d user=%s application_name=%s passfile=%s connect_timeout=2 keepalives_idle=1 keepalives_interval=1 "+
		"keepalives_count=3 tcp_user_timeout=3000", c.PeerHost, c.PeerPort, replicationUser, nodeName(c.Self), c.file("passfile"))
	if database != "" {
		text += " dbname=" + database
	}
	return text
}

// ErrRule says that a rule of access is refused.
var ErrRule = errors.New("rule of access refused")

// methods of a rule, by the server's names.
var methods = map[string]string{"scram": "scram-sha-256", "cert": "cert"}

// Check refuses what would let in somebody else than it says.
func (r Rule) Check() error {
	if methods[r.Method] == "" {
		return fmt.Errorf("%w: the method %q is neither scram nor cert", ErrRule, r.Method)
	}
	for _, word := range append(append(append([]string{}, r.Networks...), r.Users...), r.Databases...) {
		if word == "" || strings.ContainsAny(word, " \t\n\"',+#@\\") || word == "all" && r.Method == "cert" {
			return fmt.Errorf("%w: %q", ErrRule, word)
		}
	}
	for _, u := range r.Users {
		if u == superuser || strings.HasPrefix(u, applicationName) || u == "all" {
			return fmt.Errorf("%w: user %q", ErrRule, u)
		}
	}
	return nil
}

// hba is pg_hba.conf (PostgreSQL manual 21.1): duet's own way, the peer, the site's rules, and nobody else.
func (c *Config) hba() (string, error) {
	out := "local all " + superuser + " peer map=duet\n"
	for _, n := range c.Networks {
		out += "host replication " + replicationUser + " " + n + " scram-sha-256\n"
		out += "host postgres " + replicationUser + " " + n + " scram-sha-256\n" // pg_rewind
	}
	for _, r := range c.Rules {
		if err := r.Check(); err != nil {
			return "", err
		}
		for _, n := range r.Networks {
			out += fmt.Sprintf("host %s %s %s %s\n", quoted(r.Databases), quoted(r.Users), n, methods[r.Method])
		}
	}
	return out + "host all all all reject\nlocal all all reject\n", nil
}

// quoted names, so that no name is taken for a keyword such as replication.
func quoted(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = `"` + n + `"`
	}
	return strings.Join(out, ",")
}

// render writes all files. Those that hold no secret may be read by the server only, all the same.
func (c *Config) render(names decide.Names) error {
	hba, err := c.hba()
	if err != nil {
		return err
	}
	settings, refused := Settings(c.Settings, c.SlotMiB*2*mib)
	if refused != nil {
		return fmt.Errorf("settings of the site: %w", refused[0])
	}
	files := [][2]string{
		{"user.conf", settings},
		{"duet.conf", c.duetConf(names)},
		{"postgresql.conf", "include 'user.conf'\ninclude 'duet.conf'\n"},
		{"pg_hba.conf", hba},
		{"pg_ident.conf", "duet root " + superuser + "\nduet postgres " + superuser + "\n"},
	}
	for _, f := range files {
		if err := c.write(f[0], f[1]); err != nil {
			return err
		}
	}
	return c.passfile()
}

// passfile is where libpq reads the password for the peer (PostgreSQL manual 34.16).
func (c *Config) passfile() error {
	return c.write("passfile", fmt.Sprintf("%s:%d:*:%s:%s\n", passfileQuote(c.PeerHost), c.PeerPort, replicationUser, passfileQuote(string(c.Secret))))
}

func passfileQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `:`, `\:`).Replace(s)
}

// write replaces a file of the configuration by rename: the server may read it at any moment. It is rendered anew at every
// start, so it need not be durable.
func (c *Config) write(name, text string) error {
	path := c.file(name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := os.Chown(path+".new", c.UID, c.GID); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}
