package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// keepManagerInformed tells systemd that the witness serves, how its store is, and at each half of WATCHDOG_USEC that it
// lives: sd_notify(3). alive goes through the locks that requests go through: if it hangs, they do, and systemd ends the
// process. An etcd that is away is no reason to be ended, because a restart would not bring it back.
func keepManagerInformed(ctx context.Context, alive func() error, log *slog.Logger) {
	tell := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Warn("the service manager was not told", "error", err)
		}
	}
	tell(daemon.SdNotifyReady)
	defer tell(daemon.SdNotifyStopping)
	span, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of the service manager cannot be served", "error", err)
	}
	if span <= 0 {
		<-ctx.Done()
		return
	}
	ticker := time.NewTicker(span / 2)
	defer ticker.Stop()
	for {
		text := "serving"
		if fault := alive(); fault != nil {
			text = "no answers: " + fault.Error()
		}
		tell(daemon.SdNotifyWatchdog + "\nSTATUS=" + text)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
