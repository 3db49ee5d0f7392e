// Command postroad is all of Postroad: the servers, a demo, and a client for
// the command line. `postroad help` lists what it does.
//
// main only starts the program below and ends the process with its exit code;
// a test starts the same program with its own input, output and environment.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(Main())
}

// Main runs the program of this process and returns its exit code.
func Main() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// SIGHUP too: a terminal that is closed must not leave a stack behind.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	force := make(chan struct{})
	go func() {
		<-signals
		cancel()
		<-signals
		close(force)
	}()
	p := newProgram(os.Stdin, os.Stdout, os.Stderr, os.Environ())
	p.force = force
	return p.run(ctx, os.Args[1:])
}
