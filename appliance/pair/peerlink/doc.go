// Package peerlink is the way from one node's duetd to the other's: one TLS connection a path, and over all of them
// together one session.
//
// A session is one unbroken conversation. It begins when both sides hold none: the dialer (node a) offers a nonce, the
// acceptor (node b) adds its own, begins the session that is their hash and says so on every connection; the dialer
// begins it when it hears. So one side learns before the other, and what it sends meanwhile waits. A session ends for
// good when either side drops it; the other side hears that, or finds out by its own timer (protocol.md section 5.2).
//
// Messages are reliable and in order within a session: each goes out on every live connection with a sequence number,
// the receiver takes the next one and ignores the rest, and what was not acknowledged is sent again when a connection
// comes up, and every half second. "Acknowledged" means that the driver has stepped it and that its snapshot says so,
// so a restart of duetd neither repeats nor skips what the peer believes to be delivered. Beats go out loose, once on
// every path: only a fresh one is worth anything.
//
// The peer counts as lost when no connection brought an answer to a ping of this session for 1.5 s, counted in time
// during which this process ran. Pings are answered only while the driver shows that it lives: a node whose core hangs
// in a disk must not look alive. A connection that is silent for as long is closed and dialed again; the cables come
// and go, and both dialing and listening are tried for ever with a bounded back-off. A reset of all connections is not
// a loss by itself: duetd may restart within the 1.5 s and go on with the session of its snapshot.
//
// It refuses: another key than the pinned one; when nothing is pinned yet, any key that does not come over a path
// inside the chassis with the same chassis serial; its own slot; another site; another protocol version; frames larger
// than their limit; more than a few connections that have not proved anything yet. Each refusal is counted and told,
// and disturbs nothing that runs.
//
// Rejected: one connection with failover (a failover is a window without acks, and the window is most of the 1.5 s);
// UDP with own retransmission (TCP does it, and has been doing it for longer).
package peerlink
