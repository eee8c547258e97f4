/**
 * Operators' work on a running stack, through `npm run ops` as they call it: a stuck order becomes final by the verb meant
 * for it, and republishing events changes nothing.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ServiceName, sagaTopic } from "../../proto/event-table.ts";
import { openAdmin } from "../../relay/kafka/admin.ts";
import { eventually } from "../kit/testing.ts";
import { serviceNames } from "../stack/services.ts";
import { kafkaOf, orderRequest, outcomeOf, startStack, type TestStack, watchToEnd } from "../stack/testing.ts";
import { findDiscrepancies, readLedger } from "../stack/testing-books.ts";
import { runOps } from "./testing.ts";

let stack: TestStack;
beforeAll(async () => {
  // An event is dead after two attempts instead of ten, to keep the tests short.
  stack = await startStack([], { RELAY_ATTEMPTS_MAX: "2", RELAY_RETRY_BASE_MS: "100" });
}, 120_000);
afterAll(() => stack.stop(), 60_000);

/** Runs a verb and returns its document. */
async function ops(...args: readonly string[]) {
  const { code, output, errors, document } = await runOps([...args, "--json", "--operator", "ann"]);
  if (code !== 0) throw new Error(`ops ${args.join(" ")}: ${code}: ${errors}${output}`);
  return document();
}

async function place(change: Parameters<typeof orderRequest>[0] = {}): Promise<string> {
  return (await stack.connect.placeOrder(orderRequest(change))).orderId;
}

/** The final status, as soon as the order has it. */
async function outcome(orderId: string): Promise<string> {
  const last = (await watchToEnd(stack.connect, orderId)).at(-1);
  if (last === undefined) throw new Error(`${orderId} has no status.`);
  return outcomeOf(last);
}

async function statusOf(orderId: string): Promise<string> {
  const { order } = await stack.connect.getOrder({ orderId });
  return order === undefined ? "?" : outcomeOf(order);
}

/** Runs `work` while the relay is paused, so that no event leaves an outbox. */
async function whileRelayIsPaused<T>(work: () => Promise<T>): Promise<T> {
  const pid = (await stack.read()).processes.relay;
  if (pid === undefined) throw new Error("The relay is not running.");
  process.kill(pid, "SIGSTOP");
  try {
    return await work();
  } finally {
    process.kill(pid, "SIGCONT");
  }
}

async function deadEvents(): Promise<readonly { readonly id: string; readonly key: string }[]> {
  return (await ops("dead")).events;
}

const auditLogOf = async (service: ServiceName) =>
  await stack.databases[service].query<{ operator: string; command: string }>(
    "SELECT operator, command FROM ops_audit ORDER BY id",
  );

test("parked redeliver: events that payment could not handle wait in order and take effect when redelivered", async () => {
  const { payment } = stack.databases;
  await payment.execute("ALTER TABLE payment ADD CONSTRAINT broken_release CHECK (payment_method <> 'pm_unheard_of')");
  // The gateway declines an unknown method, and no other test uses this one.
  const orderId = await place({ paymentMethod: "pm_unheard_of" });
  // Other keys are not delayed.
  expect(await outcome(await place())).toBe("COMPLETED");
  await eventually(async () => {
    const { keys } = await ops("parked");
    expect(keys).toMatchObject([{ service: "payment", key: orderId, reason: "DATA", events: 2 }]);
  });
  expect(await statusOf(orderId)).toBe("STOCK_RESERVED");
  const { services } = await ops("parked", "show", orderId);
  expect(services[0].waiting.map(({ type }: { type: string }) => type)).toEqual([
    "shop.order.v1.OrderPlaced",
    "shop.inventory.v1.StockReserved",
  ]);

  await payment.execute("ALTER TABLE payment DROP CONSTRAINT broken_release");
  expect(await ops("parked", "redeliver", orderId, "--yes")).toMatchObject({ requested: 1 });
  expect(await outcome(orderId)).toBe("FAILED/PAYMENT_DECLINED");
  expect((await ops("parked")).keys).toEqual([]);
  expect(await auditLogOf("payment")).toEqual([{ operator: "ann", command: "parked redeliver" }]);
}, 60_000);

test("retry: a dead event is delivered after its row is repaired, and its order completes", async () => {
  const orderId = await whileRelayIsPaused(async () => {
    const placed = await place();
    await stack.databases.order.execute(
      "UPDATE order_outbox_event SET payload = CONCAT('broken ', payload) WHERE aggregate_id = ?",
      [placed],
    );
    return placed;
  });
  await eventually(async () => expect(await deadEvents()).toMatchObject([{ key: orderId }]));
  expect(await statusOf(orderId)).toBe("PENDING");
  const backlog = (await ops("backlog")).sources.find(({ source }: { source: string }) => source === "order");
  expect(backlog).toMatchObject({ pending: 0, failed: 0, dead: 1, heldKeys: 1, owner: { user: "shop_relay" } });
  expect(backlog.publishedPerSecond).toBeGreaterThan(0);
  const [event] = await deadEvents();
  const shown = await ops("dead", "show", event?.id ?? "");
  expect(shown.event).toMatchObject({ status: "DEAD", retryCount: 2, payload: expect.stringMatching(/^broken /) });

  await stack.databases.order.execute("UPDATE order_outbox_event SET payload = SUBSTRING(payload, 8) WHERE id = ?", [
    event?.id ?? "",
  ]);
  expect(await ops("retry", event?.id ?? "", "--yes")).toMatchObject({ retried: 1 });
  expect(await outcome(orderId)).toBe("COMPLETED");
  expect(await deadEvents()).toEqual([]);
}, 60_000);

test("discard: an event beyond repair moves to the archive, and its order completes without it", async () => {
  const orderId = await whileRelayIsPaused(async () => {
    const id = Bun.randomUUIDv7();
    await stack.databases.order.execute(
      "INSERT INTO order_outbox_event (id, aggregate_id, type, payload, headers) VALUES (?, 'x', 'shop.order.v1.OrderPlaced', 'nonsense', '{}')",
      [id],
    );
    const placed = await place();
    await stack.databases.order.execute("UPDATE order_outbox_event SET aggregate_id = ? WHERE id = ?", [placed, id]);
    return placed;
  });
  await eventually(async () => expect(await deadEvents()).toMatchObject([{ key: orderId }]));
  expect(await statusOf(orderId)).toBe("PENDING");
  expect((await ops("backlog")).sources).toMatchObject([{ source: "order", held: 1, dead: 1 }, {}, {}]);
  const [event] = await deadEvents();
  expect(await ops("discard", event?.id ?? "", "--reason", "nonsense", "--yes")).toMatchObject({ discarded: 1 });
  expect(await outcome(orderId)).toBe("COMPLETED");
  expect((await ops("dead", "show", event?.id ?? "")).event).toMatchObject({ status: "DISCARDED", discardedBy: "ann" });
  expect(await auditLogOf("order")).toEqual([
    { operator: "ann", command: "retry" },
    { operator: "ann", command: "discard" },
  ]);
}, 60_000);

describe("republish of all events", () => {
  const balances = async () => ({
    stock: await stack.databases.inventory.query("SELECT * FROM stock ORDER BY sku"),
    reservations: await stack.databases.inventory.query("SELECT * FROM reservation ORDER BY order_id"),
    payments: await stack.databases.payment.query("SELECT * FROM payment ORDER BY order_id"),
    orders: await stack.databases.order.query("SELECT * FROM orders ORDER BY order_id"),
    ledger: await readLedger(await stack.read()),
    events: await Promise.all(serviceNames.map(publishedBy)),
  });
  const count = async (service: ServiceName, table: string, where = "TRUE") =>
    Number((await stack.databases[service].query(`SELECT COUNT(*) AS n FROM ${table} WHERE ${where}`))[0]?.n);
  const publishedBy = (service: ServiceName) => count(service, `${service}_outbox_event`, "status = 'PUBLISHED'");
  const inboxRows = () => Promise.all(serviceNames.map((service) => count(service, `${service}_inbox_event`)));

  const republishAll = async () => {
    const results = await Promise.all(
      serviceNames.map((source) => ops("republish", "--source", source, "--from", "-1h", "--yes")),
    );
    expect(results.map(({ complete }) => complete)).toEqual([true, true, true]);
    return results.reduce((sum, { sent }) => sum + sent, 0);
  };
  /** How many records the services have received with one of these outcomes. */
  const recordsWith = async (outcomes: readonly string[]) => {
    const { health } = await stack.read();
    let sum = 0;
    for (const service of serviceNames) {
      const figures = await (await fetch(`${health[service]}/metrics`)).text();
      for (const match of figures.matchAll(/^inbox_events_total\{outcome="(\w+)".*\} (\d+)$/gm)) {
        if (outcomes.includes(match[1] ?? "")) sum += Number(match[2]);
      }
    }
    return sum;
  };
  const all = ["handled", "ignored", "parked", "duplicate", "skipped"];
  /** Deferred records are handled a little later than urgent ones. */
  const expectAllHandled = async () => {
    const admin = await openAdmin(kafkaOf(await stack.read()));
    try {
      const ends = (await admin.endOffsets(sagaTopic)).filter(({ offset }) => offset !== "0");
      for (const group of serviceNames) {
        const committed = new Map(
          (await admin.committedOffsets(group, sagaTopic)).map(({ partition, offset }) => [partition, offset]),
        );
        for (const { partition, offset } of ends) {
          expect({ group, partition, offset: committed.get(partition) }).toEqual({ group, partition, offset });
        }
      }
    } finally {
      await admin.close();
    }
  };

  beforeAll(async () => {
    const cancelled = await place({ paymentMethod: "pm_slow" });
    await stack.connect.cancelOrder({ orderId: cancelled, reason: "changed my mind" });
    const placed = await Promise.all(
      Array.from({ length: 40 }, (_, index) =>
        place(
          [{}, { paymentMethod: "pm_declined" }, { sku: "sku-none" }, { paymentMethod: "pm_timeout_charged" }][
            index % 4
          ],
        ),
      ),
    );
    const outcomes = await Promise.all([cancelled, ...placed].map(outcome));
    expect([...new Set(outcomes)].sort()).toEqual([
      "COMPLETED",
      "FAILED/CANCELLED",
      "FAILED/OUT_OF_STOCK",
      "FAILED/PAYMENT_DECLINED",
    ]);
    await eventually(async () => expect(await findDiscrepancies(stack)).toEqual([]), 30_000);
    await eventually(expectAllHandled, 30_000);
  }, 60_000);

  for (const isRemembered of [true, false]) {
    const what = isRemembered
      ? "republishing all events changes no balance: the inboxes drop them as duplicates"
      : "republishing all events changes no balance even with empty inboxes: the domain's own guards hold";
    test(what, async () => {
      const before = await balances();
      const remembered = await inboxRows();
      expect(Math.min(...remembered)).toBeGreaterThan(40);
      if (!isRemembered) {
        for (const service of serviceNames)
          await stack.databases[service].execute(`DELETE FROM ${service}_inbox_event`);
      }
      const received = await recordsWith(all);
      const duplicates = await recordsWith(["duplicate"]);
      const sent = await republishAll();
      expect(sent).toBe(before.events.reduce((sum, events) => sum + events, 0));
      // Every service receives every record once more.
      await eventually(async () => expect((await recordsWith(all)) - received).toBe(3 * sent), 30_000);
      expect(await inboxRows()).toEqual(remembered);
      const again = (await recordsWith(["duplicate"])) - duplicates;
      expect(again).toBe(isRemembered ? remembered.reduce((sum, rows) => sum + rows, 0) : 0);
      expect(await balances()).toEqual(before);
      expect(await findDiscrepancies(stack)).toEqual([]);
    }, 90_000);
  }
});
