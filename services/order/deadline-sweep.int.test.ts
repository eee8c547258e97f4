import { afterAll, beforeAll, expect, test } from "bun:test";
import { Registry as Metrics } from "prom-client";
import { type Database, databaseNow } from "../kit/database.ts";
import { silentLogger } from "../kit/log.ts";
import { createServiceSchema, eventually, type TestSchema } from "../kit/testing.ts";
import { timeOutOrders } from "./commands.ts";
import { startDeadlineSweep } from "./deadline-sweep.ts";
import { placeNewOrders, readOrders } from "./repository.ts";
import { newId, newPlacement, noMetrics, outbox } from "./testing.ts";

let schema: TestSchema;
let database: Database;
beforeAll(async () => {
  schema = await createServiceSchema("order");
  database = schema.open();
});
afterAll(() => schema.drop());

const commandDeps = () => ({ database, outbox, newId, sagaMetrics: noMetrics, onChanged: () => undefined });
const place = async (deadlineMs: number) => {
  const placement = newPlacement();
  await placeNewOrders(database, outbox, [placement], deadlineMs);
  return placement.order.orderId;
};

test("a deadline that passes after the sweep has read the clock is left to the next sweep", async () => {
  let orderId = "";
  let checks = 0;
  const sweep = startDeadlineSweep({
    commandDeps: commandDeps(),
    topicProgress: {
      async checkCaughtUp() {
        // Caught up once: this is a process that was suspended between reading the clock and timing out orders.
        if (checks++ > 0) return false;
        // 5 ms, so that the deadline is later than the clock that the sweep has read.
        orderId = await place(5);
        await eventually(async () => {
          const [row] = await database.query(
            "SELECT deadline_at < CURRENT_TIMESTAMP(3) AS passed FROM orders WHERE order_id = ?",
            [orderId],
          );
          expect(row?.passed).toBe(1);
        });
        return true;
      },
      close: async () => undefined,
    },
    log: silentLogger,
    metrics: new Metrics(),
    intervalMs: 5,
  });
  await eventually(() => expect(checks).toBeGreaterThan(1));
  await sweep.close();
  expect((await readOrders(database, [orderId]))[0]?.status).toBe("PENDING");
  expect(await timeOutOrders(commandDeps(), await databaseNow(database), 10)).toBe(1);
});

test("the deadline sweep times out no order while Order is behind on the topic or no broker answers", async () => {
  const orderId = await place(0);
  const answers: readonly (boolean | Error)[] = [false, new Error("no broker"), false, true];
  const statusAtCheck: (string | undefined)[] = [];
  const sweep = startDeadlineSweep({
    commandDeps: commandDeps(),
    topicProgress: {
      async checkCaughtUp() {
        const answer = answers[statusAtCheck.length] ?? true;
        statusAtCheck.push((await readOrders(database, [orderId]))[0]?.status);
        if (answer instanceof Error) throw answer;
        return answer;
      },
      close: async () => undefined,
    },
    log: silentLogger,
    metrics: new Metrics(),
    intervalMs: 5,
  });
  await eventually(() => expect(statusAtCheck.length).toBeGreaterThan(answers.length));
  await sweep.close();
  expect(statusAtCheck.slice(0, 5)).toEqual(["PENDING", "PENDING", "PENDING", "PENDING", "COMPENSATING"]);
  expect((await readOrders(database, [orderId]))[0]).toMatchObject({
    status: "COMPENSATING",
    failureReason: "TIMED_OUT",
  });
});
