import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GatewayCall } from "../../../services/payment/domain.ts";
import { createGatewayClient } from "../../../services/payment/gateway-client.ts";
import { type FakeGateway, serveFakeGateway } from "../../../services/stack/fake-gateway.ts";
import { createRandom } from "../random.ts";
import { type Account, answer, emptyAccount } from "./gateway.ts";

let folder: string;
let server: FakeGateway;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "modelled-gateway-"));
  server = serveFakeGateway({ host: "127.0.0.1", port: 0, ledgerFile: join(folder, "ledger.sqlite") });
});

afterAll(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

test("the gateway in the model gives the same answers as the fake gateway does through payment's client", async () => {
  const call = createGatewayClient({ url: server.url, timeoutMs: 5_000 });
  const random = createRandom(1);
  const accounts = new Map<string, Account>();
  for (let round = 0; round < 400; round++) {
    const orderId = `order-${random.below(40)}`;
    const accepts = orderId.length % 2 === 0;
    const terms = {
      amount: { currencyCode: "EUR", minorUnits: 1_001n },
      paymentMethod: accepts ? "pm_ok" : "pm_declined",
    };
    const made: GatewayCall = random.chance(25)
      ? { kind: "void", orderId, idempotencyKey: `void-${orderId}-${random.below(2)}`, terms }
      : { kind: "authorise", orderId, idempotencyKey: `authorise-${orderId}-${random.below(2)}`, terms };
    const expected = answer(accounts.get(orderId) ?? emptyAccount, made, accepts);
    accounts.set(orderId, expected.account);
    const { outcome } = await call(made);
    const comparable = (it: typeof outcome) => ({ ...it, authorizationId: undefined });
    expect({ round, made, ...comparable(outcome) }).toEqual({ round, made, ...comparable(expected.outcome) });
  }
  for (const [orderId, account] of accounts) {
    const response = await fetch(`${server.url}/v1/orders/${orderId}`);
    const body = (await response.json()) as {
      voided: boolean;
      authorizations: { idempotencyKey: string; status: string }[];
    };
    expect(body.voided).toBe(account.void !== undefined);
    expect(body.authorizations.map(({ idempotencyKey, status }) => `${idempotencyKey} ${status}`)).toEqual(
      account.authorizations.map(({ key, status }) => `${key} ${status}`),
    );
  }
});

test("the gateway in the model and the fake gateway both refuse a key that was used for something else", async () => {
  const call = createGatewayClient({ url: server.url, timeoutMs: 5_000 });
  const terms = (minorUnits: bigint) => ({ amount: { currencyCode: "EUR", minorUnits }, paymentMethod: "pm_ok" });
  const orderId = "order-misused";
  const calls: readonly GatewayCall[] = [
    { kind: "authorise", orderId, idempotencyKey: "key-1", terms: terms(1_001n) },
    { kind: "authorise", orderId, idempotencyKey: "key-1", terms: terms(2_002n) },
    { kind: "void", orderId, idempotencyKey: "key-1", terms: terms(1_001n) },
    { kind: "void", orderId, idempotencyKey: "key-2", terms: terms(1_001n) },
    { kind: "authorise", orderId, idempotencyKey: "key-2", terms: terms(1_001n) },
  ];
  let account = emptyAccount;
  const outcomes: string[] = [];
  for (const made of calls) {
    const expected = answer(account, made, true);
    account = expected.account;
    outcomes.push(expected.outcome.$typeName);
    expect((await call(made)).outcome.$typeName).toBe(expected.outcome.$typeName);
  }
  expect(outcomes).toEqual([
    "GatewayAuthorized",
    "GatewayUnknown",
    "GatewayVoidRefused",
    "GatewayVoidConfirmed",
    "GatewayUnknown",
  ]);
});
