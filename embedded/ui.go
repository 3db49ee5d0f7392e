//go:build !slim

package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/temporalio/ui-server/v2/server"
	"github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"
)

const (
	uiStartMax     = 10 * time.Second
	uiPollInterval = 10 * time.Millisecond
)

// uiServer is Temporal's web UI.
type uiServer struct {
	server  *server.Server
	stopped chan struct{}
}

// startUI serves the UI at listen, which must be free: the UI exits the process
// where it is not.
func startUI(ctx context.Context, listen *net.TCPAddr, temporalAddress, namespace string) (*uiServer, error) {
	host := listen.IP.String()
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // the UI puts host and port together as they are
	}
	u := &uiServer{
		server: server.NewServer(server_options.WithConfigProvider(&config.Config{
			TemporalGRPCAddress: temporalAddress,
			Host:                host,
			Port:                listen.Port,
			EnableUI:            true,
			DefaultNamespace:    namespace,
			DisableNewsFetch:    true,
			NotifyOnNewVersion:  false,
			HideLogs:            true,
			// Browsers keep a Secure cookie from plain HTTP away, and every action in the UI needs it.
			CORS: config.CORS{CookieInsecure: true},
		})),
		stopped: make(chan struct{}),
	}
	go func() {
		defer close(u.stopped)
		_ = u.server.Start() // returns nil after Stop, else never
	}()
	if err := u.awaitReady(ctx, "http://"+dialable(listen)+"/healthz"); err != nil {
		u.stop()
		return nil, err
	}
	return u, nil
}

func (u *uiServer) awaitReady(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, uiStartMax)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		err := checkHealth(ctx, &client, url)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last answer: %w", context.Cause(ctx), err)
		case <-u.stopped:
			return errors.New("it stopped at once")
		case <-time.After(uiPollInterval):
		}
	}
}

func checkHealth(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

func (u *uiServer) stop() {
	u.server.Stop()
	<-u.stopped
}
