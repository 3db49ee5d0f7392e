package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthcheckMax is how long a health check waits for its answer; a container
// engine gives it 3 s.
const healthcheckMax = 2500 * time.Millisecond

// healthcheckBytesMax is how much of an answer is shown: it names what is not
// ready.
const healthcheckBytesMax = 2 << 10

func (p *program) healthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck URL",
		Short: "Ask a URL once, for a container's health check",
		Long:  "Ask a URL once. Exit code 0: it answered 2xx; 1: another answer, or none.\nThe image has no other program that could.",
		Args:  cobra.ExactArgs(1),
		RunE:  p.action(func(ctx context.Context, args []string) error { return p.healthcheck(ctx, args[0]) }),
	}
}

func (p *program) healthcheck(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckMax)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usageError{fmt.Errorf("read the URL: %w", err)}
	}
	// No proxy and no redirect: it is this machine that is asked.
	asker := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := asker.Do(request)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 == 2 {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, healthcheckBytesMax))
	if err != nil {
		return fmt.Errorf("read health: %w", err)
	}
	return fmt.Errorf("check health: %s: %s", response.Status, strings.TrimSpace(string(text)))
}
