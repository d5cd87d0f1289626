// Command duet-witness is the third vote of many two-node sites: it keeps a register of a few bytes for each.
//
//	duet-witness serve  --data DIR --listen HOST:PORT [--new-identity] [--store etcd://HOST:PORT,...]
//	duet-witness enroll --data DIR --name SITE --key-a BASE64 --key-b BASE64
//	duet-witness key    --data DIR
//	duet-witness status --data DIR [-o json]
//	duet-witness unit
//	duet-witness version
//
// DIR holds identity.pem (the key that sites pin), sites/ (one file per enrolled site), status.sock while it serves, and
// registers.db, or etcd.json beside an etcd. Copying DIR to another machine moves the key and the enrolments; the
// registers are bound to the machine that wrote them and are set aside there, because an old copy could grant a vote
// twice. --new-identity sets them aside on this machine too: use it once after the disk, the machine's image or etcd was
// restored.
//
// Exit status: 0 done, 1 failed, 2 wrong usage.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}
