// Package consumer receives Postroad's deliveries: an http.Handler that checks
// signatures, reads bodies, drops repeats, notices gaps and answers as
// Postroad understands it, and calls one function with the events that are
// new.
//
// Deliveries come at least once and in order. A repeat is recognized by its
// sequence, so the one thing that a consumer must do is to remember the
// position it has reached in the same transaction that applies the events:
//
//	func handle(ctx context.Context, b consumer.Batch) error {
//		return inTransaction(ctx, func(tx Tx) error {
//			at, err := tx.LockPosition(b.Subscriber)
//			if err != nil {
//				return err
//			}
//			b = b.After(at)
//			for _, e := range b.Events {
//				if err := tx.Apply(e); err != nil {
//					return err
//				}
//			}
//			return tx.SavePosition(b.Subscriber, b.Position())
//		})
//	}
//
// Where the subscriber has several lanes, or sets records aside (onExhausted), one
// position is not enough: see Config.Store.
//
// The signature covers the body, the request's id and its time. The other
// headers are as trustworthy as the connection: serve TLS.
//
// It uses the standard library only, and keeps nothing itself.
package consumer
