package planner

import "postroad/delivery"

// FromConsumer tells an answer's status from Postroad's own in what people are
// told.
const FromConsumer = fromConsumer

// AnswerText is what people are told of an answer.
func AnswerText(a *delivery.Answer) string { return answerText(a) }

// Bytes is about how many bytes the events hold that were offered and are not
// dealt with (event.Event.Size).
func (p *Plan) Bytes() int { return p.window.bytes }
