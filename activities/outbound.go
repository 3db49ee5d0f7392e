package activities

import "postroad/delivery"

// Outbound makes requests to servers that are no consumers, under the guard of
// Config.Client.
func (a *Activities) Outbound() delivery.Outbound { return a.cfg.Client.Outbound() }
