/** Sessions on a real server, partly through a proxy that loses or changes what a client sends. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { type Database, openDatabase } from "./database.ts";
import { isDataError, isOutage, SessionRefusedError } from "./database-errors.ts";
import { withDeadline } from "./deadline.ts";
import type { SessionOptions } from "./sessions.ts";
import { administer, createTestSchema, eventually, type TestSchema } from "./testing.ts";
import { openDatabaseProxy, withSqlMode } from "./testing-proxy.ts";

let schema: TestSchema;
beforeAll(async () => {
  schema = await createTestSchema();
  await schema.open().execute("CREATE TABLE note (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(40) NOT NULL)");
});
afterAll(() => schema.drop());

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function open(options: Partial<SessionOptions> = {}): Database {
  const database = openDatabase({ url: schema.url, connectionsMax: 2, ...options });
  closers.push(() => withDeadline(database.close(), 5_000, () => new Error("still closing")).catch(() => undefined));
  return database;
}

async function openProxy(onStatement: (packet: Buffer) => Buffer | undefined): Promise<string> {
  const proxy = await openDatabaseProxy(schema.url, onStatement);
  closers.push(proxy.close);
  return proxy.url;
}

/** What `work` throws. An error that says so if it still waits after 5 s. */
async function failureOf(work: Promise<unknown>): Promise<unknown> {
  const late = new Error("It still waits.");
  return await withDeadline(work, 5_000, () => late).then(
    () => new Error("It succeeded."),
    (error: unknown) => error,
  );
}

test("a server that is silent after the handshake fails every kind of statement in time", async () => {
  const url = await openProxy(() => undefined);
  const database = open({ url, connectionsMax: 1, statementTimeoutMs: 300 });
  const calls: (() => Promise<unknown>)[] = [
    () => database.query("SELECT 1"),
    () => database.commit([{ sql: "DO 1", values: [] }]),
    () => database.transaction((transaction) => transaction.query("SELECT 1")),
  ];
  for (const call of calls) expect(isOutage(await failureOf(call()))).toBe(true);
});

test("a statement behind one without an answer fails in time too, and the pool goes on", async () => {
  let isSilent = false;
  const url = await openProxy((packet) => (isSilent ? undefined : packet));
  const database = open({ url, connectionsMax: 1, statementTimeoutMs: 300 });
  let failures: readonly unknown[] = [];
  const transaction = database.transaction(
    async (transaction) => {
      await transaction.query("SELECT 1");
      isSilent = true;
      failures = await Promise.all(["SELECT 2", "SELECT 3"].map((sql) => failureOf(transaction.query(sql))));
    },
    { attempts: 1 },
  );
  expect(isOutage(await transaction.catch((error: unknown) => error))).toBe(true);
  expect(failures).toHaveLength(2);
  for (const failure of failures) expect(isOutage(failure)).toBe(true);
  isSilent = false;
  expect(await database.query("SELECT 4 AS four")).toEqual([{ four: 4 }]);
});

test("a pool closes although a server does not answer, and what still waits then fails", async () => {
  let isLost = false;
  const url = await openProxy((packet) => {
    isLost = packet.includes("SELECT 2");
    return isLost ? undefined : packet;
  });
  const database = open({ url, connectionsMax: 1, statementTimeoutMs: 60_000 });
  await database.query("SELECT 1");
  const waiting = failureOf(database.query("SELECT 2"));
  await eventually(() => expect(isLost).toBe(true));
  await withDeadline(database.close(), 5_000, () => new Error("still closing"));
  expect(isOutage(await waiting)).toBe(true);
});

test("the settings of a session are one packet, before its first statement", async () => {
  const packets: string[] = [];
  const url = await openProxy((packet) => {
    packets.push(packet.toString("latin1", 5));
    return packet;
  });
  const database = open({ url, connectionsMax: 1 });
  await database.query("SELECT 1");
  await database.query("SELECT 2");
  expect(packets).toHaveLength(3);
  expect(packets[0]).toContain("sql_mode");
  const [row] = await database.query(
    "SELECT @@time_zone AS zone, @@innodb_lock_wait_timeout AS lockWait, @@sql_mode AS mode",
  );
  expect(row).toMatchObject({ zone: "+00:00", lockWait: 3, mode: expect.stringContaining("STRICT_TRANS_TABLES") });
});

test("on a server in another sql_mode, values stay values and none is cut off", async () => {
  const [before] = await administer("SELECT @@GLOBAL.sql_mode AS mode");
  await administer("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'");
  closers.push(() => administer("SET GLOBAL sql_mode = ?", [before?.mode]));
  const database = open();
  const text = "\\' OR '1' = '1";
  await database.execute("INSERT INTO note (text) VALUES (?)", [text]);
  expect(await database.query("SELECT text FROM note WHERE text = ?", [text])).toEqual([{ text }]);
  expect(await database.query("SELECT text FROM note WHERE text = ?", ["\\' OR 1 = 1 -- "])).toEqual([]);
  const tooLong = database.execute("INSERT INTO note (text) VALUES (?)", ["x".repeat(41)]);
  expect(isDataError(await failureOf(tooLong))).toBe(true);
});

test("a session whose sql_mode does not become what it must be is refused", async () => {
  for (const mode of ["NO_BACKSLASH_ESCAPES,STRICT_TRANS_TABLES", "ANSI_QUOTES"]) {
    const url = await openProxy(withSqlMode(mode));
    const database = open({ url });
    const error = await failureOf(database.query("SELECT 1"));
    expect(error).toBeInstanceOf(SessionRefusedError);
    expect((error as Error).message).toContain("sql_mode");
    // So the services wait instead of parking events.
    expect(isOutage(error)).toBe(true);
  }
});

test("connections that are not needed any more are closed by the client, before the server would", async () => {
  const database = open({ connectionsMax: 3, idleLimits: { inTransactionSeconds: 4, sessionSeconds: 4 } });
  const observer = open({ connectionsMax: 1 });
  const name = new URL(schema.url).pathname.slice(1);
  const connections = async () =>
    (await observer.query("SELECT id FROM information_schema.PROCESSLIST WHERE db = ?", [name])).length;
  // The server counts a client that goes without a farewell, and one that it has to end.
  const aborted = async () => await observer.query("SHOW GLOBAL STATUS LIKE 'Aborted_clients'");
  const [others, before] = [await connections(), await aborted()];
  await Promise.all(Array.from({ length: 3 }, () => database.query("SELECT SLEEP(0.1)")));
  expect(await connections()).toBe(others + 3);
  await eventually(async () => expect(await connections()).toBe(others));
  expect(await aborted()).toEqual(before);
  expect(await database.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
});

test("the server ends a session that stands idle inside a transaction, and its locks are free", async () => {
  const database = open({ idleLimits: { inTransactionSeconds: 1, sessionSeconds: 60 } });
  await database.execute("REPLACE INTO note (id, text) VALUES (1000, 'before')");
  const other = open();
  const idle = database.transaction(
    async (transaction) => {
      await transaction.query("SELECT * FROM note WHERE id = 1000 FOR UPDATE");
      await eventually(() => other.execute("UPDATE note SET text = 'other' WHERE id = 1000"));
      await transaction.execute("UPDATE note SET text = 'late' WHERE id = 1000");
    },
    { attempts: 1 },
  );
  expect(isOutage(await failureOf(idle))).toBe(true);
  expect(await other.query("SELECT text FROM note WHERE id = 1000")).toEqual([{ text: "other" }]);
});
