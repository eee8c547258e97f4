/** The problems of a source and the statements that correct them, on a real database and a real broker. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { insertRows } from "../../services/kit/database.ts";
import {
  administer,
  createServiceSchema,
  createTestSchema,
  eventually,
  type TestSchema,
} from "../../services/kit/testing.ts";
import { openDatabaseProxy, withSqlMode } from "../../services/kit/testing-proxy.ts";
import { openAdmin } from "../kafka/admin.ts";
import { createTestTopic, readTopic, startRelayProcess, testKafka } from "../testing.ts";
import { readRelayConfig, type SourceConfig } from "./config.ts";
import { checkTables, checkTopics } from "./source-check.ts";

const outbox = "order_outbox_event";
const archive = "order_outbox_event_archive";
const user = `test_${crypto.randomUUID().slice(0, 8)}`;

let schema: TestSchema;
let topic: string;
let deadLetterTopic: string;
const closers: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  schema = await createServiceSchema("order");
  topic = await createTestTopic(3);
  deadLetterTopic = await createTestTopic(1);
  await administer(`CREATE USER '${user}'@'%' IDENTIFIED BY 'secret'`);
});
afterEach(async () => {
  await Promise.all(closers.splice(0).map((close) => close()));
});
afterAll(async () => {
  await administer(`DROP USER '${user}'@'%'`);
  await schema.drop();
  const admin = await openAdmin(testKafka());
  await admin.deleteTopics([topic, deadLetterTopic]);
  await admin.close();
});

const entry = () => ({ name: "order", databaseUrl: schema.url, outboxTable: outbox, topic, deadLetterTopic });
function source(change: Readonly<Record<string, string>> = {}): SourceConfig {
  const [read] = readRelayConfig({ RELAY_SOURCES: JSON.stringify([{ ...entry(), ...change }]) }).sources;
  if (read === undefined) throw new Error("The configuration has no source.");
  return read;
}

/** The schema's URL for another account. */
function urlOf(username: string, password: string, change: (url: URL) => void = () => undefined): string {
  const url = new URL(schema.url);
  url.username = username;
  url.password = password;
  change(url);
  return url.href;
}

async function problemsOf(change: Readonly<Record<string, string>> = {}) {
  const { problems, error } = await checkTables(source(change));
  expect(error).toBeUndefined();
  return problems;
}

/** Gives the account these privileges and no others. */
async function grantOnly(onOutbox: string, onArchive: string): Promise<void> {
  await administer(`REVOKE ALL PRIVILEGES, GRANT OPTION FROM '${user}'@'%'`);
  await administer(`GRANT ${onOutbox} ON ${schema.name}.${outbox} TO '${user}'@'%'`);
  await administer(`GRANT ${onArchive} ON ${schema.name}.${archive} TO '${user}'@'%'`);
}

test("a database behind a proxy that keeps sql_mode is a problem", async () => {
  const proxy = await openDatabaseProxy(schema.url, withSqlMode("NO_BACKSLASH_ESCAPES"));
  const [problem] = await problemsOf({ databaseUrl: proxy.url });
  expect(problem?.problem).toContain("sql_mode");
  expect(problem?.remedy).toContain("SET SESSION");
  proxy.close();
});

describe("tables", () => {
  test("the tables of a service's own migrations have no problem", async () => {
    expect(await problemsOf()).toEqual([]);
  });

  test("the privileges of the relay's own account are enough", async () => {
    await grantOnly("SELECT, UPDATE, DELETE", "SELECT, INSERT, DELETE");
    expect(await problemsOf({ databaseUrl: urlOf(user, "secret") })).toEqual([]);
  });

  test("each missing privilege is named, and its remedy grants it", async () => {
    await grantOnly("SELECT", "SELECT, DELETE");
    const databaseUrl = urlOf(user, "secret");
    const problems = await problemsOf({ databaseUrl });
    expect(problems).toEqual([
      {
        source: "order",
        problem: `outboxTable: '${user}'@'%' lacks UPDATE, DELETE on ${outbox}`,
        remedy: `GRANT UPDATE, DELETE ON ${schema.name}.${outbox} TO '${user}'@'%';`,
      },
      {
        source: "order",
        problem: `archiveTable: '${user}'@'%' lacks INSERT on ${archive}`,
        remedy: `GRANT INSERT ON ${schema.name}.${archive} TO '${user}'@'%';`,
      },
    ]);
    for (const { remedy } of problems) await administer(remedy);
    expect(await problemsOf({ databaseUrl })).toEqual([]);
  });

  test("missing tables are named, and their remedies create them", async () => {
    const problems = await problemsOf({ outboxTable: "billing_event" });
    expect(problems.map(({ problem }) => problem)).toEqual([
      `outboxTable: ${schema.name} has no table billing_event`,
      `archiveTable: ${schema.name} has no table billing_event_archive`,
    ]);
    for (const { remedy } of problems) await administer(remedy);
    expect(await problemsOf({ outboxTable: "billing_event" })).toEqual([]);
  });

  test("missing columns and indexes are named, and their remedies add them", async () => {
    const table = "invoice_event";
    await administer(`CREATE TABLE ${schema.name}.${table} LIKE ${schema.name}.${outbox}`);
    await administer(`CREATE TABLE ${schema.name}.${table}_archive LIKE ${schema.name}.${archive}`);
    await administer(`ALTER TABLE ${schema.name}.${table} DROP COLUMN next_attempt_at, DROP COLUMN last_error`);
    await administer(`DROP INDEX ${outbox}_pending ON ${schema.name}.${table}`);
    const problems = await problemsOf({ outboxTable: table });
    expect(problems.map(({ problem }) => problem)).toEqual([
      `outboxTable: ${table} has no column last_error`,
      `outboxTable: ${table} has no column next_attempt_at`,
      `outboxTable: ${table} has no index that begins with (status, seq)`,
    ]);
    for (const { remedy } of problems) await administer(remedy);
    expect(await problemsOf({ outboxTable: table })).toEqual([]);
  });

  test("a wrong password and a missing database are named, without the password", async () => {
    const password = await problemsOf({ databaseUrl: urlOf(user, "wrong-password") });
    expect(password[0]?.problem).toBe(`databaseUrl: the database rejects the user '${user}' with this password`);
    expect(JSON.stringify(password)).not.toContain("wrong-password");
    const database = await problemsOf({
      databaseUrl: urlOf("root", "", (url) => {
        url.pathname = "/no_such_database";
      }),
    });
    expect(database[0]?.problem).toBe("databaseUrl: the database no_such_database does not exist");
    expect(database[0]?.remedy).toStartWith("CREATE DATABASE no_such_database");
  });

  test("a database that does not answer is unchecked, which is not a problem of the source", async () => {
    const { problems, error } = await checkTables(source({ databaseUrl: "mysql://nobody@127.0.0.1:1/away" }));
    expect(problems).toEqual([]);
    expect(error).toBeInstanceOf(Error);
  });
});

describe("topics", () => {
  test("missing topics are named, and a broker that does not answer is unchecked", async () => {
    expect(await checkTopics([source()], testKafka())).toEqual({ problems: [], error: undefined });
    const { problems } = await checkTopics([source({ topic: "test.missing", deadLetterTopic })], testKafka());
    expect(problems.map(({ problem }) => problem)).toEqual(["topic: the broker has no topic test.missing"]);
    expect(problems[0]?.remedy).toContain("--create --topic test.missing");
    const unreachable = { ...testKafka(), brokers: [{ host: "127.0.0.1", port: 1 }] };
    const { problems: none, error } = await checkTopics([source()], unreachable);
    expect(none).toEqual([]);
    expect(error).toBeInstanceOf(Error);
  });
});

describe("the process", () => {
  /** Starts the relay on `sources`. */
  async function run(sources: unknown, env: Readonly<Record<string, string>> = {}) {
    const { child, health } = await startRelayProcess({ sources, env, isPiped: true });
    closers.push(async () => {
      child.kill("SIGKILL");
      await child.exited;
    });
    return { child, health };
  }

  async function expectRefused(
    sources: unknown,
    messages: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ) {
    const startedMs = performance.now();
    const { child } = await run(sources, env);
    const [stdout, stderr] = await Promise.all([
      new Response(child.stdout ?? "").text(),
      new Response(child.stderr ?? "").text(),
    ]);
    expect({ code: await child.exited, stderr }).toMatchObject({ code: 2 });
    expect(performance.now() - startedMs).toBeLessThan(10_000);
    for (const message of messages) expect(stdout + stderr).toContain(message);
    expect(stdout + stderr).not.toContain("secret");
  }

  test("a relay with faulty sources names all their problems and ends with exit code 2", async () => {
    const missing = `test.${crypto.randomUUID()}`;
    await expectRefused(
      [
        { ...entry(), topic: missing, deadLetterTopic: `${missing}.dlq` },
        { ...entry(), name: "lost", outboxTable: "no_such_table" },
        { ...entry(), name: "away", databaseUrl: "mysql://nobody:secret@127.0.0.1:1/away" },
      ],
      [
        `topic: the broker has no topic ${missing}`,
        `deadLetterTopic: the broker has no topic ${missing}.dlq`,
        `outboxTable: ${schema.name} has no table no_such_table`,
        `CREATE TABLE ${schema.name}.no_such_table (`,
        `archiveTable: ${schema.name} has no table no_such_table_archive`,
      ],
    );
  });

  test("a relay with a wrong URL or a missing privilege ends with exit code 2", async () => {
    const named = (name: string, databaseUrl: string) => ({ ...entry(), name, databaseUrl });
    await grantOnly("SELECT, DELETE", "SELECT, INSERT, DELETE");
    const elsewhere = urlOf("root", "", (url) => {
      url.pathname = "/no_such_database";
    });
    await expectRefused(
      [
        named("password", urlOf(user, "wrong-secret")),
        named("database", elsewhere),
        named("privilege", urlOf(user, "secret")),
      ].map((it, index) => ({ ...it, outboxTable: index === 2 ? outbox : `${outbox}_${index}` })),
      [
        `databaseUrl: the database rejects the user '${user}' with this password`,
        "databaseUrl: the database no_such_database does not exist",
        `outboxTable: '${user}'@'%' lacks UPDATE on ${outbox}`,
        `GRANT UPDATE ON ${schema.name}.${outbox} TO '${user}'@'%'`,
      ],
    );
  });

  test("a relay with unreadable configuration ends with exit code 2", async () => {
    await expectRefused(
      [{ ...entry(), databaseUrl: "postgres://u:secret@h/s" }],
      ["entry 1: databaseUrl must be a URL"],
    );
    const env = { RELAY_DESCRIPTOR_SET: "package.json", RELAY_ATTEMPTS_MAX: "10" };
    await expectRefused([entry()], ["RELAY_DESCRIPTOR_SET: package.json cannot be read as a descriptor set"], env);
    await expectRefused([entry()], ["RELAY_ATTEMPTS_MAX must be a whole number"], { RELAY_ATTEMPTS_MAX: "0" });
  });

  test("a relay whose broker does not answer starts and waits for it", async () => {
    const { child, health } = await run([entry()], { KAFKA_BROKERS: "127.0.0.1:1" });
    await eventually(async () => {
      const { checks } = await (await fetch(`${health}/readyz`)).json();
      expect(checks.broker).toBe(false);
    }, 15_000);
    expect((await fetch(`${health}/livez`)).status).toBe(200);
    expect(child.exitCode).toBeNull();
  });

  test("a JSON source of another system is relayed by configuration alone", async () => {
    const elsewhere = await createTestSchema();
    closers.push(() => elsewhere.drop());
    const books = elsewhere.open(1);
    const event = `id CHAR(36) PRIMARY KEY, aggregate_id VARCHAR(128) NOT NULL, type VARCHAR(128) NOT NULL,
      payload MEDIUMTEXT NOT NULL, headers TEXT NULL, occurred_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
      status VARCHAR(20) NOT NULL DEFAULT 'PENDING', retry_count SMALLINT UNSIGNED NOT NULL DEFAULT 0,
      last_error TEXT NULL, published_at TIMESTAMP(3) NULL`;
    await books.execute(
      `CREATE TABLE billing_event (${event}, seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT UNIQUE,
         next_attempt_at TIMESTAMP(3) NULL, INDEX (status, seq), INDEX (aggregate_id))`,
    );
    await books.execute(
      `CREATE TABLE billing_event_archive (${event}, seq BIGINT UNSIGNED NOT NULL,
         archived_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), discarded_by VARCHAR(128) NULL,
         discard_reason VARCHAR(500) NULL, INDEX (archived_at))`,
    );
    const id = Bun.randomUUIDv7();
    const invoice = JSON.stringify({ invoice: 7, total: "12.50 €" });
    await insertRows(
      books,
      "billing_event",
      ["id", "aggregate_id", "type", "payload"],
      [
        [id, "invoice-7", "com.example.InvoiceIssued", invoice],
        [Bun.randomUUIDv7(), "invoice-7", "com.example.InvoicePaid", "{}"],
      ],
    );
    const billing = {
      name: "billing",
      databaseUrl: elsewhere.url,
      outboxTable: "billing_event",
      topic: await createTestTopic(3),
      deadLetterTopic,
      encoding: "json",
      ceSource: "urn:billing",
    };
    // It needs no descriptor set.
    await run([billing], { RELAY_DESCRIPTOR_SET: "no/such/file" });
    const records = await readTopic(billing.topic, (seen) => seen.length >= 2);
    expect(records.map(({ headers }) => String(headers?.ce_type))).toEqual([
      "com.example.InvoiceIssued",
      "com.example.InvoicePaid",
    ]);
    const [record] = records;
    expect(new TextDecoder().decode(record?.value ?? undefined)).toBe(invoice);
    expect(String(record?.headers?.ce_id)).toBe(id);
    expect(String(record?.headers?.ce_source)).toBe("urn:billing");
    expect(String(record?.headers?.["content-type"])).toBe("application/json");
    await eventually(async () =>
      expect(await books.query("SELECT DISTINCT status FROM billing_event")).toEqual([{ status: "PUBLISHED" }]),
    );
  });

  test("a source that breaks later does not stop the others, and published events are archived", async () => {
    const other = await createServiceSchema("inventory");
    closers.push(() => other.drop());
    const { child, health } = await run(
      [entry(), { ...entry(), name: "inventory", databaseUrl: other.url, outboxTable: "inventory_outbox_event" }],
      { RELAY_ARCHIVE_AFTER_MS: "0", RELAY_ARCHIVE_INTERVAL_MS: "200" },
    );
    await eventually(async () => expect((await fetch(`${health}/readyz`)).status).toBe(200));
    await administer(`ALTER TABLE ${other.name}.inventory_outbox_event DROP COLUMN headers`);
    await eventually(async () => {
      const { checks } = await (await fetch(`${health}/readyz`)).json();
      expect(checks).toMatchObject({ "source order": true, "source inventory": false });
    });
    const id = Bun.randomUUIDv7();
    await administer(
      `INSERT INTO ${schema.name}.${outbox} (id, aggregate_id, type, payload)
       VALUES ('${id}', 'a', 'shop.order.v1.OrderCompleted', '{}')`,
    );
    await eventually(async () => {
      const [row] = await administer(`SELECT status FROM ${schema.name}.${archive} WHERE id = '${id}'`);
      expect(row?.status).toBe("PUBLISHED");
    });
    expect(await administer(`SELECT id FROM ${schema.name}.${outbox}`)).toEqual([]);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  });
});
