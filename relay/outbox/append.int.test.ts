/** The append refuses an invalid event. What it accepts can be encoded, decoded and put into an inbox unchanged. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { create, createRegistry } from "@bufbuild/protobuf";
import { decodePayload, fromRecord, type NewEvent, toRecord } from "../../proto/envelope.ts";
import { eventRegistry } from "../../proto/event-table.ts";
import { OrderCompletedSchema, OrderPlacedSchema } from "../../proto/gen/shop/order/v1/events_pb.ts";
import type { Database } from "../../services/kit/database.ts";
import { createServiceSchema, type TestSchema } from "../../services/kit/testing.ts";
import { identityOf } from "../inbox/identity.ts";
import { createOutbox, OutboxAppendError } from "./append.ts";
import { openOutboxStore } from "./store.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open(2);
});
afterAll(() => schema.drop());

const outbox = createOutbox({ service: "order", registry: eventRegistry });

function event(overrides: Partial<NewEvent> & { readonly orderId?: string } = {}): NewEvent {
  const { orderId = "order-1", ...rest } = overrides;
  const message = create(OrderCompletedSchema, { orderId });
  return { id: Bun.randomUUIDv7(), aggregateId: "order-1", message, headers: {}, ...rest };
}

/**
 * A business change and the events that report it, in one transaction. The archive stands in for a business table: any row
 * that must roll back will do.
 */
const changeAndAppend = (it: NewEvent) =>
  database.transaction(async (transaction) => {
    await transaction.execute(
      "INSERT INTO order_outbox_event_archive (id, aggregate_id, type, payload, seq) VALUES (?)",
      [[it.id.slice(0, 36), "change", "change", "{}", Math.floor(Math.random() * 1e12)]],
    );
    await outbox.append(transaction, [event(), it, event()]);
  });

const rows = async (table: string) => Number((await database.query(`SELECT COUNT(*) AS n FROM ${table}`))[0]?.n);

describe("append refuses", () => {
  const bad: readonly (readonly [string, () => NewEvent, RegExp])[] = [
    [
      "a payload of 5 MiB",
      () => event({ orderId: "x".repeat(5 * 1_024 * 1_024) }),
      /^shop\.order\.v1\.OrderCompleted of "order-1": the payload has 52\d{5} bytes, but at most 900000 are allowed/,
    ],
    [
      "a payload just over the limit in bytes, not in characters",
      () => event({ orderId: "😀".repeat(225_001) }),
      /the payload has 90\d{4} bytes/,
    ],
    [
      "a payload that cannot become JSON",
      () => event({ message: { ...create(OrderCompletedSchema), orderId: 7 as never } as never }),
      /OrderCompleted of "order-1": cannot encode field shop\.order\.v1\.OrderCompleted\.order_id to JSON/,
    ],
    ["a lone surrogate in the payload", () => event({ orderId: "a\ud83d" }), /the payload contains a lone surrogate/],
    [
      "a type that is not in the registry",
      () => event({ message: create(OrderPlacedSchema) }),
      /is not in the event table/,
    ],
    [
      "an aggregate id of 129 characters",
      () => event({ aggregateId: "k".repeat(129) }),
      /must have 1 to 128 .* has 129/,
    ],
    ["no aggregate id", () => event({ aggregateId: "" }), /must have 1 to 128 characters, but has 0/],
    ["an aggregate id that ends with a space", () => event({ aggregateId: "order-1 " }), /must not end with a space/],
    ["a lone surrogate as an aggregate id", () => event({ aggregateId: "\ud83d" }), /contains a lone surrogate/],
    ["an id that is too long for the inbox", () => event({ id: "i".repeat(37) }), /the id must be 1 to 36/],
    [
      "a header that is a bigint",
      () => event({ headers: { traceparent: 7n as never } }),
      /traceparent must be a string/,
    ],
    [
      "a header that is an object",
      () => event({ headers: { correlationId: {} as never } }),
      /correlationId must be a string/,
    ],
    [
      "headers of 9 KB",
      () => event({ headers: { correlationId: "x".repeat(9_000) } }),
      /the headers have 90\d\d bytes/,
    ],
    ["a lone surrogate in a header", () => event({ headers: { correlationId: "\udc00" } }), /a header contains a lone/],
  ];

  for (const [what, make, expectedMessage] of bad) {
    test(`an append of ${what} fails, and the business change with it`, async () => {
      const it = make();
      const isUnknown = it.message.$typeName === "shop.order.v1.OrderPlaced";
      const registry = createRegistry(OrderCompletedSchema);
      const own = isUnknown ? createOutbox({ service: "order", registry }) : outbox;
      expect(() => own.statements([it])).toThrow(OutboxAppendError);
      expect(() => own.statements([it])).toThrow(expectedMessage);
      if (!isUnknown) await expect(changeAndAppend(it)).rejects.toThrow(expectedMessage);
      expect([await rows("order_outbox_event"), await rows("order_outbox_event_archive")]).toEqual([0, 0]);
    });
  }
});

test("an appended event decodes to the same event, even with NUL, 4-byte characters, a key of 128 of these, or a payload of 899,000 bytes", async () => {
  const store = openOutboxStore({ databaseUrl: schema.url, table: "order_outbox_event" });
  const good = [
    event({ orderId: "NUL \0, 😀, quotes \" ' and a backslash \\ud83d" }),
    event({ aggregateId: "k".repeat(128) }),
    event({ aggregateId: "😀".repeat(128) }),
    event({ orderId: "x".repeat(899_000) }),
    event({ headers: { traceparent: "00-a-b-01", correlationId: "é😀", causationId: "c" } }),
  ];
  await database.transaction(async (transaction) => await outbox.append(transaction, good));
  const stored = await store.readPending({ afterSeq: "0", exceptKeys: [], limit: 10 });
  await store.close();
  for (const [index, it] of good.entries()) {
    const row = stored[index];
    if (row === undefined) throw new Error(`${it.id} is missing.`);
    const record = toRecord(row, { ceSource: "/shop/order", encoding: "protobuf", registry: eventRegistry });
    const envelope = fromRecord({ ...record, key: new TextEncoder().encode(record.key) });
    expect(envelope.headers).toEqual(it.headers);
    expect(identityOf(envelope)).toMatchObject({ eventId: it.id, key: it.aggregateId });
    expect(decodePayload(envelope, eventRegistry)).toEqual(it.message);
  }
});
