// Package api is duetd's HTTP interface and its Go client: one set of typed objects, one table of routes, one form of
// error.
//
// The server speaks huma (OpenAPI 3.1 from the Go types) over a unix socket that only root may use: the socket has mode
// 0600 and every connection's peer credentials are checked, so a mistake in a directory's mode is not a way in. It
// answers in every state of the node, also before a site exists and while I/O is frozen: status never waits for a
// device, the peer or libvirt. Everything it shows comes from one Backend, which appliance/node implements.
//
// Errors are problem+json (RFC 9457) with four words of our own: code, what, why, next. No error reaches a person
// without a code. An order for the other node is refused with 409 and the name of that node.
//
// Founding, live fence tests and changes of the witness are long actions: their POST returns a task. Tasks live in memory.
// Founding turns each node off once, so its progress is also kept durably by the node and told by GET /setup; a client
// that loses its task asks there. How a change of the witness ended is seen in GET /witness. One task at a time; a
// second one gets 423 and the id of the first. A task that is cancelled puts back what it must before it is over.
//
// An override (peer-off, force-solo) takes two calls: GET /override shows what is known, what may be lost, and a word
// that follows from the present state; the POST wants that word.
//
// The client is in this package so that the types cannot differ. It distinguishes "duetd said no" (*Problem) from
// "no contact with duetd" (*ContactError).
package api
