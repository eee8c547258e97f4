import { expect, test } from "bun:test";
import { decodeHeaders, encodeHeaders } from "./parking.ts";

test("parked headers are stored byte for byte, and readable if they are text", () => {
  const headers = {
    ce_id: Buffer.from("event-1"),
    emoji: Buffer.from("🙂"),
    empty: Buffer.from(""),
    binary: Buffer.from([0xff, 0x00, 0xfe]),
    several: [Buffer.from("a"), Buffer.from([0x80])],
  };
  const stored = encodeHeaders({ ...headers, absent: undefined });
  expect(stored).toContain('["ce_id","event-1"]');
  expect(decodeHeaders(stored)).toEqual(headers);
  expect(decodeHeaders(encodeHeaders(undefined))).toEqual({});
  // A byte order mark must not be dropped.
  const marked = { bom: Buffer.from([0xef, 0xbb, 0xbf, 0x61]) };
  expect(decodeHeaders(encodeHeaders(marked))).toEqual(marked);
});
