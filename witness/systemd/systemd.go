// Package systemd holds the unit file of duet-witness, so that the program can print it: whoever copies one static
// binary to a small machine has everything (`duet-witness unit`).
//
// It promises a unit that systemd accepts without a warning and that takes from the program whatever it does not need;
// both are tests with systemd's own judge. It refuses nothing and decides nothing.
//
// The user is dynamic: no account has to be made, and the state folder follows it. Commands that an operator runs as
// root write files that belong to the owner of their folder, or the service could not read them.
package systemd

import _ "embed"

// Unit is the text of duet-witness.service.
//
//go:embed duet-witness.service
var Unit string
