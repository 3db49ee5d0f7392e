package main

import (
	"context"
	"io"
)

// Invocation is one run of the program within a test.
type Invocation struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string
	WorkDir        string
	Force          <-chan struct{}
}

// Run runs it and returns the exit code.
func (i Invocation) Run(ctx context.Context) int {
	p := newProgram(i.Stdin, i.Stdout, i.Stderr, i.Environ)
	p.workDir, p.force = i.WorkDir, i.Force
	return p.run(ctx, i.Args)
}

// DemoEvents are the demo's events.
func DemoEvents() []byte { return demoEvents }
