package planner

import (
	"time"

	"postroad/event"
)

// ladder is a schedule whose steps tell themselves apart.
var ladder = []event.Duration{event.Duration(time.Second), event.Duration(2 * time.Second), event.Duration(4 * time.Second)}

func testRetry() event.Retry {
	return event.Retry{Schedule: ladder, GiveUpAfter: event.Duration(time.Minute), EventAttempts: 3, MaxRetryAfter: event.Day}
}
