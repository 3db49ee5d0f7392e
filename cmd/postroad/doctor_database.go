package main

import (
	"context"
	"fmt"
	"time"

	"postroad/eventlog"
	"postroad/store"
	"postroad/worker"
)

const (
	serverVersionMin = 150000
	// headroomMin is how many more connections a server should take: one process
	// opens up to 16, and as many while it is replaced.
	headroomMin = 20
	// skewMax is how far clocks may be apart before times that people compare lie.
	skewMax = 2 * time.Second
	// pinnedMin is how long a feed must have been held back; the position of a
	// subscriber at rest is up to a minute old.
	pinnedMin = 10 * time.Minute
	listMax   = 20
)

func (d *doctor) examineDatabase(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doctorMax)
	defer cancel()
	e, err := d.store.Examine(ctx, d.longTransaction)
	if err != nil {
		d.fail("database", "Let the role read pg_stat_activity and pg_replication_slots.", "%v.", err)
		return
	}
	d.checkServer(e)
	for _, h := range e.Holders {
		do := "End it (SELECT pg_terminate_backend) unless it is meant: dead rows pile up behind it."
		text := fmt.Sprintf("A transaction of %s has been open for %s.", h.What, h.For.Round(time.Second))
		if h.For == 0 {
			do = "Let its reader catch up, or drop it: dead rows pile up behind it."
			text = fmt.Sprintf("The %s is %d transactions behind.", h.What, h.Transactions)
		}
		d.warn("vacuum", do, "%s", text)
	}
	if len(e.Holders) == 0 {
		d.ok("vacuum", "Nothing holds back vacuum.")
	}
	if e.StrayAttempts {
		d.warn("attempts", "Start a worker: its housekeeping makes partitions and moves them. What is older than the oldest partition stays: DELETE FROM attempts_default.",
			"Attempts lie in the default partition, where they are not removed by age.")
	} else {
		d.ok("attempts", "Every attempt lies in the partition of its day.")
	}
	d.checkKey(ctx)
	d.checkWaker(ctx)
	d.checkPinned(ctx)
}

func (d *doctor) checkServer(e store.Examination) {
	if e.Version < serverVersionMin {
		d.fail("version", "Upgrade PostgreSQL to 15 or later.", "PostgreSQL is at version %d.", e.Version/10000)
	} else {
		d.ok("version", "PostgreSQL is at version %d.", e.Version/10000)
	}
	switch {
	case !e.Fsync || !e.FullPageWrites:
		d.fail("durability", "Set fsync = on and full_page_writes = on.", "fsync or full_page_writes is off: a crash may lose the whole database.")
	case e.SynchronousCommit == "off" || e.SynchronousCommit == "local":
		d.warn("durability", "ALTER ROLE ... SET synchronous_commit = on.", "The role begins with synchronous_commit = %s; each session of ours sets it.", e.SynchronousCommit)
	default:
		d.ok("durability", "What is committed stays (synchronous_commit = %s).", e.SynchronousCommit)
	}
	if free := e.ConnectionsMax - e.Connections; free < headroomMin {
		d.warn("connections", "Raise max_connections, or go through a pooler.", "%d of %d connections are open: another process may find none.", e.Connections, e.ConnectionsMax)
	} else {
		d.ok("connections", "%d of %d connections are open.", e.Connections, e.ConnectionsMax)
	}
	if e.Ahead.Abs() > skewMax {
		d.warn("clocks", "Let both keep time by NTP. Deliveries go by PostgreSQL's clock alone.",
			"PostgreSQL's clock is %s ahead of this machine's.", e.Ahead.Round(time.Millisecond))
	} else {
		d.ok("clocks", "PostgreSQL's clock and this machine's agree.")
	}
}

// checkKey compares the key without writing anything: a first start does that.
func (d *doctor) checkKey(ctx context.Context) {
	const check = "key"
	if d.keyFile == "" {
		d.ok(check, "The master key was not looked at (--key-file).")
		return
	}
	var there map[string]any
	found, err := d.store.Setting(ctx, store.SettingKeyCheck, &there)
	if err == nil && !found {
		d.ok(check, "Nothing is sealed yet.")
		return
	}
	if err == nil {
		_, err = store.OpenSealer(ctx, d.pool, d.keyFile, false)
	}
	if err != nil {
		d.fail(check, "Give every process the key file that this database was first used with.", "%v.", err)
		return
	}
	d.ok(check, "The master key is the one this database was first used with.")
}

func (d *doctor) checkWaker(ctx context.Context) {
	active, err := worker.WakerActive(ctx, d.pool)
	switch {
	case err != nil:
		d.fail("waker", "", "%v.", err)
	case !active:
		d.fail("waker", "Start a worker; if one runs, its log says why it cannot take the lock.", "No worker is the waker: subscribers at rest are not told of new events.")
	default:
		d.ok("waker", "A worker is the waker.")
	}
}

func (d *doctor) checkPinned(ctx context.Context) {
	pinned, err := eventlog.New(d.pool, eventlog.Config{ListenURL: d.databaseURL}).Pinned(ctx, pinnedMin, listMax)
	if err != nil {
		d.fail("pinned", "", "%v.", err)
		return
	}
	for _, p := range pinned {
		d.warn("pinned", fmt.Sprintf("Resume, seek or delete %s, or set retention.hardAge of the feed.", p.Subscriber),
			"Feed %s keeps events for %s beyond its age, because %s is at %d.", p.Feed, p.For.Round(time.Second), p.Subscriber, p.Cursor)
	}
	if len(pinned) == 0 {
		d.ok("pinned", "No subscriber keeps a feed beyond its age.")
	}
}

// checkInstallation compares the Temporal that is asked with the one that drives
// the database.
func (d *doctor) checkInstallation(ctx context.Context, here store.Installation) {
	const check = "installation"
	var stored store.Installation
	found, err := d.store.Setting(ctx, store.SettingInstallation, &stored)
	switch {
	case err != nil:
		d.fail(check, "", "%v.", err)
	case !found:
		d.ok(check, "No worker has run with this database yet.")
	case stored != here:
		d.fail(check, "Connect to that one, or, if it is gone for good, start a worker once with --adopt-cluster.", "%s.",
			(&worker.InstallationError{Stored: stored, Here: here}).Error())
	default:
		d.ok(check, "This Temporal is the one that drives the database.")
	}
}
