import { describe, expect, test } from "bun:test";
import { type ReceivedEnvelope, UndecodableRecordError } from "../../proto/envelope.ts";
import type { Transaction } from "../../services/kit/database.ts";
import { CommitOutcomeUnknownError } from "../../services/kit/database-errors.ts";
import { UnavailableError } from "../../services/kit/errors.ts";
import type { TopicRecord } from "../kafka/consumer.ts";
import { OutboxAppendError } from "../outbox/append.ts";
import {
  createFailureStreak,
  decodeHeaders,
  describeFailure,
  encodeHeaders,
  type FaultReason,
  faultOf,
  HandlerError,
  identityOf,
  identityOfUndecodable,
  publishedAtOf,
  runHandler,
} from "./parking.ts";

const sqlError = (errno: number) => Object.assign(new Error("refused"), { errno, sqlState: "HY000", code: "ER_X" });
const systemError = (code: string) => Object.assign(new Error("refused"), { code, errno: -111, syscall: "connect" });
const thrownByHandler = (cause: unknown) => new HandlerError("", { cause });

describe("what is parked, and what is an outage", () => {
  const cases: readonly (readonly [name: string, error: unknown, reason: FaultReason | undefined])[] = [
    ["a record that does not decode", new UndecodableRecordError("no"), "UNDECODABLE"],
    ["an event that does not fit the outbox", new OutboxAppendError("too large"), "APPEND"],
    ["the same, told by the service's code", thrownByHandler(new OutboxAppendError("too large")), "APPEND"],
    ["a bug", thrownByHandler(new TypeError("x is not a function")), "HANDLER"],
    [
      "a bad argument, as the runtime tells it",
      thrownByHandler(Object.assign(new TypeError("no"), { code: "ERR_INVALID_ARG_TYPE" })),
      "HANDLER",
    ],
    ["something that is no error", thrownByHandler("no"), "HANDLER"],
    ["data error 1406, too long", sqlError(1406), "DATA"],
    ["data error 1366, no such value", sqlError(1366), "DATA"],
    ["data error 1264, out of range", sqlError(1264), "DATA"],
    ["data error 1048, NULL", sqlError(1048), "DATA"],
    ["data error 3819, CHECK on MySQL", sqlError(3819), "DATA"],
    ["data error 4025, CHECK on MariaDB", sqlError(4025), "DATA"],
    ["data error 1452, foreign key", sqlError(1452), "DATA"],
    ["a data error that the code wrapped", new Error("saving", { cause: sqlError(1406) }), "DATA"],

    ["the same bug outside of the service's code", new TypeError("x is not a function"), undefined],
    ["a deadlock", sqlError(1213), undefined],
    ["a lock wait", sqlError(1205), undefined],
    ["a duplicate key: another instance was first", sqlError(1062), undefined],
    ["a missing column", sqlError(1054), undefined],
    ["a missing table", sqlError(1146), undefined],
    ["a missing right", sqlError(1142), undefined],
    ["a read-only server", sqlError(1290), undefined],
    ["a full disk", sqlError(1021), undefined],
    ["an error of the server that nobody has heard of", sqlError(9999), undefined],
    ["a refused connection", systemError("ECONNREFUSED"), undefined],
    ["a lost connection", systemError("PROTOCOL_CONNECTION_LOST"), undefined],
    [
      "a driver's error without a code",
      new Error("Can't add new command when connection is in closed state"),
      undefined,
    ],
    ["a lost answer to COMMIT", new CommitOutcomeUnknownError("lost"), undefined],
    ["a refused connection in the service's code", thrownByHandler(systemError("ECONNREFUSED")), undefined],
    ["the same, wrapped", thrownByHandler(new Error("asking", { cause: systemError("ECONNRESET") })), undefined],
    ["a server's error in the service's code", thrownByHandler(sqlError(1213)), undefined],
    ["something away, told by the service's code", thrownByHandler(new UnavailableError("away")), undefined],
    ["nothing", undefined, undefined],
  ];
  for (const [name, error, reason] of cases) {
    test(`${name}: ${reason ?? "outage"}`, () => expect(faultOf(error)).toBe(reason as FaultReason));
  }
});

describe("the service's own code", () => {
  const driverError = new Error("Pool is closed.");
  const transaction: Transaction = {
    transaction: true,
    query: async () => Promise.reject(driverError),
    execute: async () => 1,
    pipeline: () => Promise.reject(new Error("unused")),
  };
  const thrownBy = (work: (on: Transaction) => Promise<unknown>) =>
    runHandler(transaction, work).catch((it): unknown => it);

  test("is to blame for what it throws by itself", async () => {
    const error = await thrownBy(async (on) => {
      await on.execute("");
      throw new RangeError("no");
    });
    expect(error).toEqual(new HandlerError("RangeError: no", { cause: new RangeError("no") }));
    expect(faultOf(error)).toBe("HANDLER");
    expect(describeFailure(error)).toBe("RangeError: no");
  });

  test("is not to blame for a statement that failed, whatever it makes of it", async () => {
    expect(await thrownBy((on) => on.query(""))).toBe(driverError);
    const own = new Error("could not load");
    const error = await thrownBy(async (on) => {
      await on.query("").catch(() => undefined);
      throw own;
    });
    expect(error).toBe(own);
    expect(faultOf(error)).toBeUndefined();
  });

  test("and what it returns is returned", async () => expect(await runHandler(transaction, async () => 7)).toBe(7));
});

test("an error is described along its causes, without end and without the statement", () => {
  const error: Error = new Error("outer", { cause: Object.assign(new Error("inner"), { sql: "INSERT secret" }) });
  expect(describeFailure(error)).toBe("Error: outer ← Error: inner");
  const loop: Error = new Error("again");
  loop.cause = loop;
  expect(describeFailure(loop).length).toBeLessThan(200);
  expect(describeFailure(new Error("x".repeat(1e6))).length).toBe(2_000);
  expect(describeFailure("no error")).toBe("no error");
});

describe("failures in a row", () => {
  const streakOf = () => {
    const changes: boolean[] = [];
    return { changes, ...createFailureStreak({ keysMax: 5, onChange: (stopped) => changes.push(stopped) }) };
  };

  test("five different keys stop the consumer, until something succeeds", () => {
    const streak = streakOf();
    expect(["a", "b", "c", "d"].map(streak.fails)).toEqual([false, false, false, false]);
    expect(streak.isStopped()).toBe(false);
    expect([streak.fails("e"), streak.fails("e"), streak.fails("f")]).toEqual([true, true, true]);
    expect(streak.isStopped()).toBe(true);
    streak.succeeds();
    expect(streak.isStopped()).toBe(false);
    expect(streak.fails("e")).toBe(false);
    expect(streak.changes).toEqual([true, false]);
  });

  test("the same key again, or a success between, does not", () => {
    const streak = streakOf();
    for (let time = 0; time < 20; time++) expect(streak.fails("a")).toBe(false);
    for (const key of ["b", "c", "d"]) streak.fails(key);
    streak.succeeds();
    expect(streak.fails("e")).toBe(false);
    expect(streak.changes).toEqual([]);
  });
});

const recordOf = (change: Partial<TopicRecord> = {}): TopicRecord => ({
  key: Buffer.from("order-1"),
  value: Buffer.from([1, 2, 3]),
  headers: { ce_id: Buffer.from("event-1"), ce_source: Buffer.from("/shop/order") },
  partition: 3,
  offset: "12",
  publishedAt: new Date("2024-05-06T07:08:09.123Z"),
  ...change,
});

describe("the identity of a record that is no event", () => {
  const identify = (change?: Partial<TopicRecord>) => identityOfUndecodable(recordOf(change), "type");

  test("is its own where it can be used", () => {
    expect(identify()).toEqual({
      eventId: "event-1",
      key: "order-1",
      type: "type",
      source: "/shop/order",
      occurredAt: undefined,
    });
    expect(identify({ key: null, headers: { ce_subject: "order-2" } }).key).toBe("order-2");
  });

  test("is a digest where there is none, the same at every delivery and nobody else's", () => {
    const first = identify({ key: null, headers: {} });
    expect(first.eventId).toMatch(/^raw-[0-9a-f]{32}$/);
    expect(first.key).toBe(first.eventId);
    expect(identify({ key: null, headers: {} })).toEqual(first);
    const others = [
      identify({ key: null, headers: {}, offset: "13" }),
      identify({ key: null, headers: {}, partition: 4 }),
      identify({ key: null, headers: {}, value: null }),
      // A topic that was made anew counts its offsets from 0 again.
      identify({ key: null, headers: {}, publishedAt: new Date(2e12) }),
    ];
    expect(new Set([first, ...others].map((it) => it.eventId)).size).toBe(5);
  });

  test("a key that does not fit is one key still, at every record of it", () => {
    const long = Buffer.from("x".repeat(129));
    const [first, second] = [identify({ key: long, offset: "1" }), identify({ key: long, offset: "2" })];
    expect(first.key).toBe(second.key);
    expect(first.key.length).toBe(36);
    expect(identify({ key: Buffer.from("") }).key).toMatch(/^raw-/);
    expect(identify({ headers: { ce_id: "x".repeat(37) } }).eventId).toMatch(/^raw-/);
    expect(identify({ headers: { ce_id: "blank " } }).eventId).toMatch(/^raw-/);
  });
});

test("an envelope that the inbox has no room for is no event", () => {
  const envelope: ReceivedEnvelope = {
    id: "018f0000-0000-7000-8000-000000000000",
    type: "shop.order.v1.OrderPlaced",
    ceSource: "/shop/order",
    aggregateId: "order-1",
    occurredAt: new Date(),
    sequence: "1",
    headers: {},
    payload: new Uint8Array(),
  };
  expect(identityOf(envelope).key).toBe("order-1");
  // 128 characters, of which each is two in JavaScript.
  expect(identityOf({ ...envelope, aggregateId: "🙂".repeat(128) }).key.length).toBe(256);
  const misfits: Partial<ReceivedEnvelope>[] = [
    { id: "x".repeat(37) },
    { id: "a b" },
    { aggregateId: "🙂".repeat(129) },
    { aggregateId: "order-1 " },
    { aggregateId: "" },
    { ceSource: "x".repeat(129) },
    { occurredAt: new Date(0) },
    { occurredAt: new Date("2200-01-01") },
  ];
  for (const misfit of misfits) expect(() => identityOf({ ...envelope, ...misfit })).toThrow(UndecodableRecordError);
});

test("a record's time is recorded within what a TIMESTAMP holds", () => {
  const years = [new Date(-1), new Date("2024-01-01"), new Date("2300-01-01")].map((publishedAt) =>
    publishedAtOf(recordOf({ publishedAt })).getUTCFullYear(),
  );
  expect(years).toEqual([1970, 2024, 2038]);
});

test("headers are kept byte for byte, and readable where they are text", () => {
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
  // A byte order mark is a byte sequence like any other.
  const marked = { bom: Buffer.from([0xef, 0xbb, 0xbf, 0x61]) };
  expect(decodeHeaders(encodeHeaders(marked))).toEqual(marked);
});
