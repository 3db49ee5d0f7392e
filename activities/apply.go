package activities

import (
	"context"
	"errors"
	"strings"
	"time"

	"postroad/contract"
	"postroad/store"
)

// controlSourceSignal is the source of controls that came as signals.
const controlSourceSignal = "signal"

// Apply accepts a control that came as a signal. It never takes the lease: the
// control is in force at once where nobody holds it, and whoever holds it puts
// it in force. A repeat of the same request changes nothing.
func (a *Activities) Apply(ctx context.Context, in contract.ApplyInput) (contract.ApplyResult, error) {
	request := store.ControlRequest{
		Subscriber: in.Subscriber, Kind: in.Kind,
		// PostgreSQL cannot store NUL: a pause must not fail for its reason.
		Reason: strings.ReplaceAll(strings.ToValidUTF8(in.Reason, "\ufffd"), "\x00", "\ufffd"),
		Source: controlSourceSignal, RequestID: in.RequestID,
	}
	if in.Until != "" {
		until, err := time.Parse(time.RFC3339, in.Until)
		if err == nil {
			request.Until = &until
		} // else: what does not decode means the plain thing
	}
	result, err := a.cfg.Store.Control(ctx, request)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return contract.ApplyResult{Gone: true}, nil
	case errors.Is(err, store.ErrUntilPast):
		return contract.ApplyResult{Refused: err.Error()}, nil
	case err != nil:
		return contract.ApplyResult{}, err
	}
	return contract.ApplyResult{Version: result.Version}, nil
}
