// Reads, pages and filters the EntityEvent resource of a feed with @odata/client,
// an OData client from npm, and prints what it saw as one JSON object:
//
//   npm ci --prefix examples/odata-client
//   node examples/odata-client/check.mjs http://127.0.0.1:8080/odata/default/ TOKEN
import odata from "@odata/client";

const { OData } = odata;
const [serviceEndpoint, token] = process.argv.slice(2);
const client = OData.New4({
  serviceEndpoint,
  commonHeaders: { Authorization: `Bearer ${token}`, Prefer: "maxpagesize=500", "OData-MaxVersion": "4.01" },
});
const events = client.getEntitySet("EntityEvent");
const tuple = (e) => `${e.EntityEventSequence} ${e.ResourceName} ${e.ResourceRecordKey}`;

// By the links of the service. The client has no call for them, so a link's
// options go into its next request, which makes the URL.
const byLinks = [];
for (let params = client.newParam().orderby("EntityEventSequence", "asc"), page; params; ) {
  page = await client.newRequest({ collection: "EntityEvent", method: "GET", params });
  byLinks.push(...page.value.map(tuple));
  params = undefined;
  if (page["@odata.nextLink"]) {
    params = client.newParam();
    for (const [name, value] of new URL(page["@odata.nextLink"]).searchParams) params.custom(name, value);
  }
}

// By $top and $skip, 500 at a time.
const bySkip = [];
for (let page; page === undefined || page.length > 0; bySkip.push(...page.map(tuple))) {
  page = await events.query(client.newParam().orderby("EntityEventSequence", "asc").top(500).skip(bySkip.length));
}

// As RESO's clients poll: what is above the last one seen.
const byPosition = [];
for (let after = 0, page; page === undefined || page.length > 0; byPosition.push(...page.map(tuple))) {
  const above = client.newFilter().property("EntityEventSequence").gt(after);
  page = await events.query(client.newParam().filter(above).orderby("EntityEventSequence", "asc").top(500));
  after = page.at(-1)?.EntityEventSequence ?? after;
}

const first = byPosition[0].split(" ");
const ofRecord = await events.query(
  client.newFilter().property("ResourceName").eqString(first[1]).property("ResourceRecordKey").eqString(first[2]),
);
const selected = await events.query(client.newParam().select(["ResourceName"]).top(1));
const one = await events.retrieve(Number(first[0]));
const count = await events.count();
let refusal = "";
try {
  await events.query(client.newFilter().property("Nothing").eq(1));
} catch (error) {
  refusal = error.message;
}
console.log(JSON.stringify({ byLinks, bySkip, byPosition, ofRecord: ofRecord.map(tuple), selected: Object.keys(selected[0]), one: tuple(one), count, refusal }));
