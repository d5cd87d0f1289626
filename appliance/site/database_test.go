package site

import (
	"slices"
	"strings"
	"testing"
)

func withDatabase() Document {
	d := answers()
	d.Database = &Database{
		Interface: "lan0", Write: "198.51.100.20", Read: "198.51.100.21", Settings: []string{"shared_buffers = 16MB"},
		Rules: []DatabaseRule{{Networks: []string{"198.51.100.0/24"}, Users: []string{"app"}, Databases: []string{"app"}, Method: "scram"}},
	}
	return d
}

// The database is one more resource, with a slot between the VMs and the unattached volumes, and a password of its own.
func TestFoundADatabase(t *testing.T) {
	d, err := Found(withDatabase(), founding())
	if err != nil {
		t.Fatal(err)
	}
	if d.Database.Slot != 3 || len(d.Database.Password) != 32 || d.Database.ListenPort() != 5432 {
		t.Errorf("slot %d, port %d, password of %d", d.Database.Slot, d.Database.ListenPort(), len(d.Database.Password))
	}
	all := d.Resources()
	i := slices.IndexFunc(all, func(r Resource) bool { return r.Database != nil })
	if len(all) != 4 || i < 0 || all[i].Slot != 3 || all[i].VM != nil || len(all[i].Volumes) != 0 || all[3].Slot != 4 {
		t.Errorf("resources %+v", all)
	}
	none, err := Found(answers(), founding())
	if err != nil || none.Database != nil {
		t.Errorf("a database that nobody asked for: %v", err)
	}
	if data, err := none.Canonical(); err != nil || strings.Contains(string(data), "database") {
		t.Errorf("a site without one says so: %s", data)
	}
	copied := d.clone()
	copied.Database.Rules[0].Users[0], copied.Database.Settings[0], copied.Database.Write = "x", "y", "z"
	if d.Database.Rules[0].Users[0] != "app" || d.Database.Settings[0] == "y" || d.Database.Write == "z" {
		t.Error("a clone shares what it holds")
	}
	taken := d.clone()
	taken.Database.Slot = 1
	nameless := d.clone()
	nameless.Database.Password = ""
	for field, doc := range map[string]Document{"database.slot": taken, "database.password": nameless} {
		if wrong := Check(doc); len(wrong) != 1 || wrong[0].Field != field {
			t.Errorf("%s: %v", field, wrong)
		}
	}
}

// Each wrong answer is named by its field, and nothing else is.
func TestValidateNamesTheDatabaseField(t *testing.T) {
	if err := Validate(withDatabase(), "netio").Err(); err != nil {
		t.Fatal(err)
	}
	for field, spoil := range map[string]func(*Database){
		"database.slot":              func(d *Database) { d.Slot = 3 },
		"database.password":          func(d *Database) { d.Password = "x" },
		"database.write":             func(d *Database) { d.Write = "fe80::20" },
		"database.read":              func(d *Database) { d.Read = d.Write },
		"database.interface":         func(d *Database) { d.Interface = "a-very-long-interface" },
		"database.port":              func(d *Database) { d.Port = 70000 },
		"database.durability":        func(d *Database) { d.Durability = "maybe" },
		"database.settings[0]":       func(d *Database) { d.Settings = []string{"a = 1\nb = 2"} },
		"database.rules[0]":          func(d *Database) { d.Rules[0].Users = nil },
		"database.rules[0].networks": func(d *Database) { d.Rules[0].Networks = []string{"198.51.100.7/24"} },
	} {
		d := withDatabase()
		spoil(d.Database)
		if wrong := Validate(d, "netio"); len(wrong) != 1 || wrong[0].Field != field {
			t.Errorf("%s: %v", field, wrong)
		}
	}
}
