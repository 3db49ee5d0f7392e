// Reads a body of format reso with each EntityEventSequence as a BigInt: a
// JavaScript number holds them exactly up to 2^53 only. No string of the body
// can be taken for the member, because quotes within a string are escaped.
export function readEvents(text) {
  const quoted = text.replace(/"EntityEventSequence":([0-9]+)/g, '"EntityEventSequence":"$1"');
  const body = JSON.parse(quoted);
  const events = body.value ?? [body];
  return events.map((e) => ({ ...e, EntityEventSequence: BigInt(e.EntityEventSequence) }));
}
