package main_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"postroad/embedded"
)

// temporalVariable makes a process of this test binary be a Temporal server with
// the data of the directory that it names, until it is told to end. Its argument
// is the address to listen on; it prints the one that it got.
const temporalVariable = "POSTROAD_TEST_TEMPORAL"

func temporalMain(dir, listen string) (code int) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	server, err := embedded.Start(ctx, embedded.Config{
		DataDir: dir, WithoutDatabase: true, WithoutUI: true, TemporalListen: listen, NoSync: true,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(server.TemporalAddress)
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.Background(), stopMax)
	defer cancel()
	if err := server.Stop(stopping); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
