// Package workflows holds the workflows of Postroad: deterministic code that
// decides what to do next and does nothing itself. Everything that touches the
// world is an activity, named in package contract.
//
// A worker that registers a workflow of this package also needs Interceptor,
// and so does a replayer: a run without it fails its first task rather than be
// deaf to signals. A replayer needs the workflow ID too. Changes here are replayed against the recorded histories in
// testdata; what would break one needs workflow.GetVersion.
package workflows
