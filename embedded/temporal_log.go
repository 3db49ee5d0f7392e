//go:build !slim

package embedded

import "go.temporal.io/server/common/log"

// plainLogger is a logger without the shortcut by which Temporal tags another one
// at once: a buffer of a kilobyte each, for every workflow and task it holds in
// memory, though hardly any of them ever has something to say.
type plainLogger struct{ log.Logger }
