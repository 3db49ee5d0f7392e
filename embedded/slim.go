//go:build slim

package embedded

import (
	"context"
	"net"
)

const slim = true

// With the tag slim nothing below is ever started: Start refuses first.
type (
	temporalServer struct{}
	uiServer       struct{}
)

func newTemporal(Config, *dataDir, *net.TCPAddr, string) *temporalServer { return nil }

func (*temporalServer) start(context.Context) (string, error) { return "", ErrSlim }

func (*temporalServer) stop(context.Context) error { return nil }

func startUI(context.Context, *net.TCPAddr, string, string) (*uiServer, error) { return nil, ErrSlim }

func (*uiServer) stop() {}
