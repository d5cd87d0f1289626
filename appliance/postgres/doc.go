// Package postgres runs one PostgreSQL 15 server of a pair on this node and carries out what postgres/decide decides: it
// looks at the directory, the process, the server and the peer's word, calls Step, does the effects in order, and looks
// again. It decides nothing itself.
//
// # What it promises
//
// The server is started by this package only, without a shell and without pg_ctl, behind closed gates. Everything that
// takes long has a deadline and ends as a word to Step. A directory that an interrupted rewind or copy has left behind is
// marked beside it, durably, before the first byte is written, and is never started. Nothing waits for a commit to be
// cancelled: a cancelled wait for the standby reports success to its client (PostgreSQL manual 27.2.8), so this
// package never cancels or terminates a session that waits.
//
// # What it needs
//
// Authority (membership: the grant, the record by rule W, the ownership), Other (the manager on the other node), Gates and
// Addresses (the ways for clients) are interfaces of this package. appliance/node gives it membership's own authority, the
// peer over the session of the nodes, postgres/gate and appliance/addresses; the tests of this package a script and forwarders.
//
// # How it fails
//
// A look that fails makes the server "hung", not "stopped": what cannot be asked is not restarted. An effect that fails
// ends the list; the next look begins again from what is there. When this process ends, the server goes on; the next one
// finds it by its working directory.
package postgres
