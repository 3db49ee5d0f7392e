// Package mirror follows the EntityEvent resource of a RESO Web API server
// (RCP-27) into a feed whose sequences the producer supplies.
//
// It reads `<service root>/EntityEvent` above the feed's head, in order, and
// appends what is safe. All it has to remember is the feed's head, so that it
// can be killed anywhere: events that were sent before are repeats under the
// same numbers.
//
// A producer that hands numbers out before it commits (a database sequence)
// shows 103 before 102. Who follows it by "greater than the last one seen" never
// sees 102. So a number behind a gap is taken only once it, or a higher one, has
// been seen for the horizon; numbers without a gap before them are taken at
// once. What shows up later than that cannot be appended any more, as the feed's
// numbers only rise: a second reading of the latest numbers finds and reports
// it.
//
// The package knows neither where events go (Feed is its caller's) nor which
// addresses may be called (Doer is, too).
package mirror
