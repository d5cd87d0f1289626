package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"duet/build/lab"
)

// timing are the settings of Patroni, in seconds, that bound how long a dead primary counts as alive.
type timing struct{ TTL, LoopWait, RetryTimeout int }

//go:embed patroni.yml
var patroniText string

// patroniNode fills patroni.yml.
type patroniNode struct {
	Node, Address, Etcd, Folder, Word string
	Timing                            timing
}

const (
	etcdAddress   = "203.0.113.13:2379"
	etcdFolder    = "/var/lib/etcd-bench"
	patroniConf   = "/etc/patroni/bench.yml"
	patroniFolder = "/data/patroni" // on a drive of the lab, as duet's /data/duet
	patroniSite   = "bench"         // scope in patroni.yml
	patroniREST   = "8008"
)

func (n patroniNode) render() (string, error) {
	t, err := template.New("patroni.yml").Option("missingkey=error").Parse(patroniText)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Execute(&text, n)
	return text.String(), err
}

// patroniPair is Debian's Patroni on nodes a and b, with Debian's etcd on the machine of the witness.
type patroniPair struct{ l *lab.Lab }

func upPatroni(ctx context.Context, o options, name string, t timing) (pair, error) {
	for _, program := range []string{"patroni", "patronictl", "etcd"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w (make bench-pg installs it)", err)
		}
	}
	opts := lab.Options{
		Name: filepath.Base(o.state) + "-" + name, State: filepath.Join(o.state, name), Bin: o.bin, Bare: true, DataMiB: labMiB,
		Units: map[string][]lab.Unit{lab.Witness: {{Name: "etcd", Argv: []string{
			"etcd", "--data-dir", etcdFolder, "--listen-client-urls", "http://" + etcdAddress, "--advertise-client-urls", "http://" + etcdAddress,
		}}}},
		Files: map[string][]lab.File{},
	}
	for node, address := range map[string]string{lab.A: addressA, lab.B: addressB} {
		text, err := patroniNode{node, address, etcdAddress, patroniFolder, databaseWord, t}.render()
		if err != nil {
			return nil, err
		}
		opts.Files[node] = []lab.File{{Path: patroniConf, Mode: 0o644, Data: text}}
		// As Debian's unit has it: as the user of the server. The folder is on a drive, which is empty at first.
		opts.Units[node] = []lab.Unit{{Name: "patroni", Argv: []string{"/bin/sh", "-c", fmt.Sprintf(
			"install -d -o postgres -g postgres -m 700 %s && exec setpriv --reuid postgres --regid postgres --init-groups patroni %s", patroniFolder, patroniConf,
		)}}}
	}
	l, err := lab.Up(ctx, opts)
	if err != nil {
		return nil, err
	}
	p := patroniPair{l}
	if _, err := waitInSync(ctx, p, upLimit); err != nil {
		return nil, errors.Join(err, p.down())
	}
	return p, nil
}

func (p patroniPair) site() *lab.Lab { return p.l }

func (p patroniPair) down() error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	return p.l.Down(ctx)
}

// url names both nodes: a client takes the first that is not read-only, as libpq does.
func (p patroniPair) url() string {
	return fmt.Sprintf("postgres://%s:%s@%s:%s,%s:%s/%s?sslmode=disable&target_session_attrs=read-write",
		databaseUser, databaseWord, addressA, databasePort, addressB, databasePort, databaseName)
}

func (p patroniPair) sql(ctx context.Context, node, database, statement string) ([]byte, error) {
	return p.l.Exec(ctx, node, "runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", patroniFolder, "-d", database, "-c", statement)
}

// cluster is the part that counts of what Patroni's REST interface says at /cluster.
type cluster struct {
	Members []member `json:"members"`
}

type member struct {
	Name  string `json:"name"`
	Role  string `json:"role"`
	State string `json:"state"`
}

// roles are who is primary and who may be promoted by what is in etcd; an error when that is not one of each, running.
func (c cluster) roles() (primary, standby string, err error) {
	for _, m := range c.Members {
		switch {
		case m.State != "running" && m.State != "streaming": // the latter since 3.0.4
		case m.Role == "leader":
			primary = m.Name
		case m.Role == "sync_standby":
			standby = m.Name
		}
	}
	if primary == "" || standby == "" {
		return "", "", fmt.Errorf("members %+v", c.Members)
	}
	return primary, standby, nil
}

// inSync: etcd names the standby, without which Patroni does not promote it, and the primary's server waits for it.
func (p patroniPair) inSync(ctx context.Context) (string, error) {
	out, err := p.l.Exec(ctx, lab.A, "bench-pg", askVerb, "http://"+addressA+":"+patroniREST+"/cluster")
	if err != nil {
		return "", err
	}
	var c cluster
	if err := json.Unmarshal(out, &c); err != nil {
		return "", err
	}
	primary, _, err := c.roles()
	if err != nil {
		return "", err
	}
	return primary, streaming(ctx, p, primary)
}

func (p patroniPair) switchover(ctx context.Context, primary string) error {
	_, err := p.l.Exec(ctx, primary, "patronictl", "-c", patroniConf, "switchover", patroniSite, "--leader", primary, "--candidate", other(primary), "--force")
	return err
}

// askVerb is this program inside a node, whose network nobody else sees.
const askVerb = "ask"

// ask prints what a server answers.
func ask(url string, stdout, stderr io.Writer) int {
	client := http.Client{Timeout: callLimit}
	answer, err := client.Get(url)
	if err == nil {
		defer answer.Body.Close()
		_, err = io.Copy(stdout, answer.Body)
	}
	if err != nil {
		fmt.Fprintln(stderr, "ask:", err)
		return 1
	}
	return 0
}
