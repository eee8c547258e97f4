import { describe, expect, test } from "bun:test";
import { UndecodableRecordError } from "../../proto/envelope.ts";
import type { Transaction } from "../../services/kit/database.ts";
import { CommitOutcomeUnknownError } from "../../services/kit/database-errors.ts";
import { UnavailableError } from "../../services/kit/errors.ts";
import { OutboxAppendError } from "../outbox/append.ts";
import { describeFailure, type Fault, faultOf, HandlerError, runHandler } from "./faults.ts";

const sqlError = (errno: number) => Object.assign(new Error("refused"), { errno, sqlState: "HY000", code: "ER_X" });
const systemError = (code: string) => Object.assign(new Error("refused"), { code, errno: -111, syscall: "connect" });
const thrownByHandler = (cause: unknown) => new HandlerError("", { cause });

describe("classification of errors", () => {
  const cases: readonly (readonly [name: string, error: unknown, fault: Fault | undefined])[] = [
    ["a record that does not decode", new UndecodableRecordError("no"), "UNDECODABLE"],
    ["an event that does not fit the outbox", new OutboxAppendError("too large"), "APPEND"],
    [
      "an event that does not fit the outbox, thrown by the handler",
      thrownByHandler(new OutboxAppendError("too large")),
      "APPEND",
    ],
    ["a bug in the handler", thrownByHandler(new TypeError("x is not a function")), "HANDLER"],
    [
      "a bad argument, as the runtime reports it",
      thrownByHandler(Object.assign(new TypeError("no"), { code: "ERR_INVALID_ARG_TYPE" })),
      "HANDLER",
    ],
    ["a thrown value that is not an Error", thrownByHandler("no"), "HANDLER"],
    ["data error 1406, too long", sqlError(1406), "DATA"],
    ["data error 1366, malformed value", sqlError(1366), "DATA"],
    ["data error 1264, out of range", sqlError(1264), "DATA"],
    ["data error 1048, NULL", sqlError(1048), "DATA"],
    ["data error 3819, CHECK on MySQL", sqlError(3819), "DATA"],
    ["data error 4025, CHECK on MariaDB", sqlError(4025), "DATA"],
    ["data error 1452, foreign key", sqlError(1452), "DATA"],
    ["a data error wrapped in another error", new Error("saving", { cause: sqlError(1406) }), "DATA"],

    ["a bug outside of the handler", new TypeError("x is not a function"), undefined],
    ["a deadlock", sqlError(1213), undefined],
    ["a lock wait", sqlError(1205), undefined],
    ["a duplicate key, because another instance was first", sqlError(1062), undefined],
    ["a missing column", sqlError(1054), undefined],
    ["a missing table", sqlError(1146), undefined],
    ["a missing privilege", sqlError(1142), undefined],
    ["a read-only server", sqlError(1290), undefined],
    ["a full disk", sqlError(1021), undefined],
    ["an unknown error of the server", sqlError(9999), undefined],
    ["a refused connection", systemError("ECONNREFUSED"), undefined],
    ["a lost connection", systemError("PROTOCOL_CONNECTION_LOST"), undefined],
    [
      "a driver's error without a code",
      new Error("Can't add new command when connection is in closed state"),
      undefined,
    ],
    ["a lost answer to COMMIT", new CommitOutcomeUnknownError("lost"), undefined],
    ["a refused connection in the handler", thrownByHandler(systemError("ECONNREFUSED")), undefined],
    [
      "a lost connection in the handler, wrapped",
      thrownByHandler(new Error("asking", { cause: systemError("ECONNRESET") })),
      undefined,
    ],
    ["a deadlock in the handler", thrownByHandler(sqlError(1213)), undefined],
    ["an unavailable server, reported by the handler", thrownByHandler(new UnavailableError("away")), undefined],
    ["no error at all", undefined, undefined],
  ];
  for (const [name, error, fault] of cases) {
    const kind = fault === undefined ? "an outage" : `the fault ${fault}`;
    test(`${name} is ${kind}`, () => expect(faultOf(error)).toBe(fault as Fault));
  }
});

describe("running a handler", () => {
  const driverError = new Error("Pool is closed.");
  const transaction: Transaction = {
    transaction: true,
    query: async () => Promise.reject(driverError),
    execute: async () => 1,
    pipeline: () => Promise.reject(new Error("unused")),
  };
  const thrownBy = (work: (on: Transaction) => Promise<unknown>) =>
    runHandler(transaction, work).catch((it): unknown => it);

  test("an error that a handler throws by itself is the handler's fault", async () => {
    const error = await thrownBy(async (on) => {
      await on.execute("");
      throw new RangeError("no");
    });
    expect(error).toEqual(new HandlerError("RangeError: no", { cause: new RangeError("no") }));
    expect(faultOf(error)).toBe("HANDLER");
    expect(describeFailure(error)).toBe("RangeError: no");
  });

  test("a failed statement is not the handler's fault, whatever the handler throws then", async () => {
    expect(await thrownBy((on) => on.query(""))).toBe(driverError);
    const own = new Error("could not load");
    const error = await thrownBy(async (on) => {
      await on.query("").catch(() => undefined);
      throw own;
    });
    expect(error).toBe(own);
    expect(faultOf(error)).toBeUndefined();
  });

  test("a handler's result is returned", async () => expect(await runHandler(transaction, async () => 7)).toBe(7));
});

test("an error is described with its causes, cut to a limit, and without the failed statement", () => {
  const error: Error = new Error("outer", { cause: Object.assign(new Error("inner"), { sql: "INSERT secret" }) });
  expect(describeFailure(error)).toBe("Error: outer ← Error: inner");
  const loop: Error = new Error("again");
  loop.cause = loop;
  expect(describeFailure(loop).length).toBeLessThan(200);
  expect(describeFailure(new Error("x".repeat(1e6))).length).toBe(2_000);
  expect(describeFailure("no error")).toBe("no error");
});
