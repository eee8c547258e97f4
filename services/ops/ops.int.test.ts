/** `npm run ops` as operators call it: output, questions and exit codes. The sources come from configuration alone. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { encodeHeaders } from "../../relay/inbox/parking.ts";
import { openAdmin } from "../../relay/kafka/admin.ts";
import { createTestTopic, readTopic, testKafka } from "../../relay/testing.ts";
import { environment } from "../kit/config.ts";
import { type Database, insertRows } from "../kit/database.ts";
import { createServiceSchema, type TestSchema, testServers } from "../kit/testing.ts";
import { runOps } from "./testing.ts";

const root = join(import.meta.dir, "../..");
const broker = () =>
  testServers()
    .kafkaBrokers.map(({ host, port }) => `${host}:${port}`)
    .join(",");

let order: TestSchema;
let inventory: TestSchema;
let orders: Database;
let topic: string;
beforeAll(async () => {
  [order, inventory, topic] = await Promise.all([
    createServiceSchema("order"),
    createServiceSchema("inventory"),
    createTestTopic(1),
  ]);
  orders = order.open();
});
afterAll(async () => {
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics([topic]);
  await Promise.all([admin.close(), order.drop(), inventory.drop()]);
});

function operatorEnvironment(): Readonly<Record<string, string | undefined>> {
  const source = (name: string, databaseUrl: string) => ({
    name,
    databaseUrl,
    outboxTable: `${name}_outbox_event`,
    topic,
  });
  return {
    ...environment(),
    OPS_SOURCES: JSON.stringify([source("order", order.url), source("inventory", inventory.url)]),
    KAFKA_BROKERS: broker(),
  };
}

const ops = (args: readonly string[], change: Readonly<Record<string, string>> = {}) =>
  runOps(args, { ...operatorEnvironment(), ...change });

/** Runs the command at a terminal and types `typed`. */
async function opsAtTerminal(args: readonly string[], typed: string): Promise<{ code: number; output: string }> {
  const command = [process.execPath, "services/ops/main.ts", ...args].map((word) => `'${word}'`).join(" ");
  const child = Bun.spawn(["script", "--quiet", "--return", "--command", command, "/dev/null"], {
    cwd: root,
    env: operatorEnvironment(),
    stdin: new TextEncoder().encode(typed),
    stdout: "pipe",
    stderr: "inherit",
  });
  const [output, code] = await Promise.all([new Response(child.stdout).text(), child.exited]);
  return { code, output };
}

async function insert(status: string, key: string): Promise<string> {
  const id = Bun.randomUUIDv7();
  const payload = JSON.stringify({ orderId: key });
  const published = status === "PUBLISHED" ? new Date() : null;
  const columns = ["id", "aggregate_id", "type", "payload", "headers", "status", "published_at"];
  await insertRows(orders, "order_outbox_event", columns, [
    [id, key, "shop.order.v1.OrderCompleted", payload, "{}", status, published],
  ]);
  return id;
}

const statusOf = async (id: string) =>
  (await orders.query<{ status: string }>("SELECT status FROM order_outbox_event WHERE id = ?", [id]))[0]?.status;

describe("the call", () => {
  test("wrong arguments print the usage and exit with code 2", async () => {
    for (const args of [[], ["explode"], ["backlog", "--frob"], ["retry"], ["discard", "some-id"]]) {
      const { code, output, errors } = await ops(args);
      expect({ args, code, output }).toEqual({ args, code: 2, output: "" });
      expect(errors).toContain("Usage: npm run ops -- VERB");
    }
    const help = await ops(["--help"]);
    expect([help.code, help.output.startsWith("Usage: "), help.errors]).toEqual([0, true, ""]);
  });

  test("wrong configuration is named without passwords and exits with code 2", async () => {
    const faulty = JSON.stringify([{ name: "order", databaseUrl: "mysql://me:secret@127.0.0.1:1" }]);
    const { code, errors } = await ops(["backlog"], { OPS_SOURCES: faulty });
    expect(code).toBe(2);
    expect(errors).toContain("OPS_SOURCES entry 1");
    expect(errors).not.toContain("secret");
  });

  test("an unknown event or source exits with code 1, also with --json", async () => {
    const unknown = await ops(["retry", "unknown", "--yes", "--json"]);
    expect([unknown.code, unknown.document()]).toEqual([
      1,
      { error: { code: "NOT_FOUND", message: "There is no event unknown in order, inventory." } },
    ]);
    const source = await ops(["backlog", "--source", "shipping"]);
    expect([source.code, source.errors.trim()]).toEqual([1, "There is no source shipping. Sources: order, inventory."]);
  });

  test("if one source is unavailable, the others are shown and the exit code is 1", async () => {
    const { code, output, document } = await ops(["backlog", "--json"], {
      OPS_SOURCES: JSON.stringify([
        { name: "order", databaseUrl: order.url, outboxTable: "order_outbox_event", topic },
        { name: "away", databaseUrl: "mysql://me:secret@127.0.0.1:1/x", outboxTable: "x_outbox_event", topic },
      ]),
    });
    expect(code).toBe(1);
    expect(document()).toMatchObject({ sources: [{ source: "order" }], failures: [{ source: "away" }] });
    expect(output).not.toContain("secret");
  });
});

describe("changes", () => {
  test("without a terminal and without --yes nothing changes, and the exit code is 2", async () => {
    const id = await insert("DEAD", "asked");
    for (const args of [
      ["retry", id],
      ["retry", "--all"],
      ["discard", id, "--reason", "x"],
    ]) {
      const { code, output, errors } = await ops(args);
      expect([code, output]).toEqual([2, ""]);
      expect(errors).toContain("There is no terminal to ask");
      expect(errors).toContain("--yes");
    }
    expect(await statusOf(id)).toBe("DEAD");
    await orders.execute("DELETE FROM order_outbox_event");
  });

  test("every verb that changes something asks first, and changes nothing if the answer is no", async () => {
    await orders.execute("DROP TABLE IF EXISTS ops_audit");
    const [id, published] = [await insert("DEAD", "asked"), await insert("PUBLISHED", "asked")];
    const parkedKey = ["asked", "event-1", "DATA", "no", 3];
    await insertRows(
      orders,
      "order_parked_key",
      ["aggregate_id", "event_id", "reason", "error", "attempts"],
      [parkedKey as (string | number)[]],
    );
    const questions: readonly (readonly [readonly string[], RegExp])[] = [
      [["retry", id], /Retry shop.order.v1.OrderCompleted of asked .*\? \[y\/N\]/],
      [["retry", "--all"], /Retry 1 failed or dead event \(order 1\)\?/],
      [["discard", id, "--reason", "x"], /Discard .* for good\? No service will ever receive it\./],
      [["parked", "redeliver", "asked"], /Redeliver the parked key asked \(order\)\?/],
      [["parked", "redeliver", "--all"], /Redeliver 1 parked key \(order 1\)\?/],
      [["republish", "--source", "order", "--from", "-1h"], /Send 1 event that order published .* again .*\?/],
      [
        ["archive", "run", "--older-than", "0s"],
        /Archive the events that order, inventory published more than 0s ago\?/,
      ],
    ];
    const answered = await Promise.all(questions.map(([args]) => opsAtTerminal(args, "n\n")));
    for (const [index, { code, output }] of answered.entries()) {
      expect(output).toMatch(questions[index]?.[1] ?? /$^/);
      expect({ args: questions[index]?.[0], code, declined: /Nothing was changed\./.test(output) }).toEqual({
        args: questions[index]?.[0],
        code: 1,
        declined: true,
      });
    }
    expect([await statusOf(id), await statusOf(published)]).toEqual(["DEAD", "PUBLISHED"]);
    expect(
      await orders.query("SELECT aggregate_id FROM order_parked_key WHERE replay_requested_at IS NOT NULL"),
    ).toEqual([]);
    await expect(orders.query("SELECT id FROM ops_audit")).rejects.toThrow("doesn't exist");

    const agreed = await opsAtTerminal(["retry", id], "y\n");
    expect([agreed.code, await statusOf(id)]).toEqual([0, "PENDING"]);
    expect(await orders.query("SELECT command FROM ops_audit")).toEqual([{ command: "retry" }]);
    await orders.execute("DELETE FROM order_parked_key");
    await orders.execute("DELETE FROM order_outbox_event");
    await orders.execute("DROP TABLE ops_audit");
  });

  test("retry, discard and republish take effect, and are recorded under the operator's name", async () => {
    const [first, second] = [await insert("DEAD", "a"), await insert("DEAD", "b")];
    expect((await ops(["dead", "--json"])).document().events.map(({ id }: { id: string }) => id)).toEqual([
      first,
      second,
    ]);
    expect((await ops(["dead", "show", first])).output).toContain('"orderId": "a"');
    expect((await ops(["retry", first, "--yes"])).code).toBe(0);
    expect(await statusOf(first)).toBe("PENDING");
    const discarded = await ops(["discard", second, "--reason", "by hand", "--yes", "--json", "--operator", "ann"]);
    expect(discarded.document()).toMatchObject({ discarded: 1, events: [{ source: "order", id: second, key: "b" }] });
    expect(await statusOf(second)).toBeUndefined();

    const published = await insert("PUBLISHED", "c");
    const dry = await ops(["republish", "--source", "order", "--from", "-1h", "--dry-run", "--json"]);
    expect(dry.document()).toMatchObject({ source: "order", topic, events: 1, sent: 0, dryRun: true });
    const republished = await ops([
      "republish",
      "--source",
      "order",
      "--from",
      "-1h",
      "--yes",
      "--json",
      "--operator",
      "ann",
    ]);
    expect([republished.code, republished.document()]).toMatchObject([0, { events: 1, sent: 1, complete: true }]);
    const [record] = await readTopic(topic, (records) => records.length > 0);
    expect(String(record?.headers?.ce_id)).toBe(published);
    const tooOld = await ops(["republish", "--source", "order", "--from", "-2d", "--yes"], {
      ARCHIVE_RETENTION_HOURS: "24",
    });
    expect([tooOld.code, tooOld.errors]).toEqual([1, expect.stringContaining("too old to be republished")]);

    const user = Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
    expect(await orders.query("SELECT operator, command, arguments FROM ops_audit ORDER BY id")).toEqual([
      { operator: user, command: "retry", arguments: JSON.stringify({ id: first }) },
      { operator: "ann", command: "discard", arguments: JSON.stringify({ id: second, reason: "by hand" }) },
      { operator: "ann", command: "republish", arguments: JSON.stringify({ source: "order", from: "-1h" }) },
    ]);
  });
});

describe("parked keys", () => {
  test("parked keys are listed, shown with their events, and redelivered on request", async () => {
    const type = "shop.order.v1.OrderCompleted";
    const header = encodeHeaders({ ce_id: Buffer.from("event-1"), ce_type: Buffer.from(type) });
    const keyColumns = ["aggregate_id", "event_id", "reason", "error", "attempts"];
    const eventColumns =
      "event_id aggregate_id type source published_at topic_partition topic_offset record_key headers payload error";
    await insertRows(orders, "order_parked_key", keyColumns, [["key-1", "event-1", "UNDECODABLE", "no message", 3]]);
    const row = (id: string, offset: number, error: string | null) =>
      [id, "key-1", type, "/shop/order", new Date(), 0, offset, "key-1", header, "\u0001 no message", error] as const;
    await insertRows(orders, "order_parked_event", eventColumns.split(" "), [
      row("event-1", 7, "no message"),
      row("event-2", 8, null),
    ]);

    const listed = await ops(["parked", "--json"]);
    const key = { service: "order", key: "key-1", events: 2, attempts: 3, reason: "UNDECODABLE", error: "no message" };
    expect(listed.document()).toMatchObject({ keys: [key], failures: [] });
    expect((await ops(["parked", "--service", "inventory"])).output).toBe("No parked keys.\n");
    const shown = await ops(["parked", "show", "key-1", "--json"]);
    expect(shown.document()).toMatchObject({
      services: [
        {
          ...key,
          waiting: [
            { eventId: "event-1", error: "no message", payload: null, payloadBase64: btoa("\u0001 no message") },
            { eventId: "event-2", error: null, offset: "8" },
          ],
        },
      ],
    });
    expect((await ops(["parked", "show", "key-2"])).code).toBe(1);
    expect((await ops(["parked", "redeliver", "key-2", "--yes"])).code).toBe(1);
    expect((await ops(["parked", "redeliver", "key-1"])).code).toBe(2);

    await orders.execute("DROP TABLE IF EXISTS ops_audit");
    const asked = await ops(["parked", "redeliver", "--all", "--yes", "--json"]);
    expect(asked.document()).toEqual({ requested: 1, services: { order: 1 } });
    expect((await ops(["parked", "redeliver", "key-1", "--yes", "--json"])).document()).toMatchObject({ requested: 0 });
    expect(await orders.query("SELECT aggregate_id FROM order_parked_key WHERE replay_requested_at <= NOW(3)")).toEqual(
      [{ aggregate_id: "key-1" }],
    );
    expect(await orders.query("SELECT command, result FROM ops_audit")).toEqual([
      { command: "parked redeliver", result: JSON.stringify({ requested: 1, service: "order" }) },
    ]);
  });
});

describe("archive", () => {
  test("archive run moves the events that are old enough, and is recorded", async () => {
    await orders.execute("DELETE FROM order_outbox_event");
    await orders.execute("DELETE FROM order_outbox_event_archive");
    await orders.execute("DROP TABLE IF EXISTS ops_audit");
    const [old, recent] = [await insert("PUBLISHED", "a"), await insert("PUBLISHED", "a")];
    await orders.execute(
      "UPDATE order_outbox_event SET published_at = CURRENT_TIMESTAMP(3) - INTERVAL 3 HOUR WHERE id = ?",
      [old],
    );
    const status = await ops(["archive", "status", "--source", "order", "--json"]);
    expect(status.document().sources).toMatchObject([{ source: "order", published: 2, archived: 0, discarded: 0 }]);
    expect(status.document().sources[0].oldestAgeMs).toBeWithin(10_800_000, 10_900_000);
    expect((await ops(["archive", "run", "--older-than", "2h"])).code).toBe(2);
    const run = await ops(["archive", "run", "--older-than", "2h", "--yes", "--json"]);
    expect([run.code, run.document()]).toEqual([0, { moved: 1, sources: { order: 1, inventory: 0 }, complete: true }]);
    expect([await statusOf(old), await statusOf(recent)]).toEqual([undefined, "PUBLISHED"]);
    expect(await orders.query("SELECT command, arguments, result FROM ops_audit")).toEqual([
      {
        command: "archive run",
        arguments: JSON.stringify({ "older-than": "2h" }),
        result: JSON.stringify({ moved: 1, outcome: "COMPLETE" }),
      },
    ]);
  });
});
