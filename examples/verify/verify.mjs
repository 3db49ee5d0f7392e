import { createHmac, timingSafeEqual } from "node:crypto";

// Throws unless a delivery was signed with the secret less than five minutes
// from now. headers are those of node:http, body is the Buffer that came:
// parsing it and writing it again would change it.
export function verify(secret, headers, body, now = Date.now() / 1000) {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  if (key.length === 0) throw new Error("this is no signing secret");
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^[0-9]+$/.test(timestamp) || Math.abs(now - Number(timestamp)) > 300) {
    throw new Error("too old, or from the future");
  }
  const want = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  const fits = (headers["webhook-signature"] ?? "").split(" ").some((signature) => {
    if (!signature.startsWith("v1,")) return false;
    const given = Buffer.from(signature.slice(3), "base64");
    return given.length === want.length && timingSafeEqual(given, want);
  });
  if (!fits) throw new Error("no signature fits");
}
