import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FakeGateway, serveFakeGateway } from "./fake-gateway.ts";
import type { LedgerEntry } from "./fake-gateway-ledger.ts";

let folder: string;
let gateway: FakeGateway;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gateway-"));
  gateway = open();
});

afterEach(async () => {
  await gateway.close();
  rmSync(folder, { recursive: true, force: true });
});

function open(): FakeGateway {
  return serveFakeGateway({ host: "127.0.0.1", port: 0, ledgerFile: join(folder, "ledger.sqlite") });
}

const order = { orderId: "order-1", amountMinor: "1250", currency: "EUR", paymentMethod: "pm_ok" };

async function post(path: string, key: string | undefined, body: unknown, timeoutMs = 5_000) {
  const response = await fetch(`${gateway.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...(key === undefined ? {} : { "idempotency-key": key }) },
    body: typeof body === "string" ? body : JSON.stringify(body),
    signal: AbortSignal.timeout(timeoutMs),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

const authorize = (key: string, fields: Partial<typeof order> = {}, timeoutMs?: number) =>
  post("/v1/authorizations", key, { ...order, ...fields }, timeoutMs);

async function look(path: string) {
  const response = await fetch(`${gateway.url}${path}`);
  return { status: response.status, body: await response.json() };
}

async function authorizationsOf(orderId: string) {
  const { body } = await look(`/v1/orders/${orderId}`);
  return body.authorizations as { idempotencyKey: string; status: string }[];
}

test("authorises, and gives the same answer to the same key without charging again", async () => {
  const first = await authorize("key-1");
  expect(first.status).toBe(200);
  expect(first.body).toMatchObject({
    orderId: "order-1",
    status: "AUTHORIZED",
    amountMinor: "1250",
    currency: "EUR",
  });
  expect(await authorize("key-1")).toEqual(first);
  expect(await authorizationsOf("order-1")).toHaveLength(1);
});

test("twenty concurrent requests with one key are one charge; two keys for one order are two charges", async () => {
  const answers = await Promise.all(Array.from({ length: 20 }, () => authorize("key-1")));
  expect(new Set(answers.map((answer) => answer.body.authorizationId)).size).toBe(1);
  await authorize("key-2");
  expect(await authorizationsOf("order-1")).toHaveLength(2);
});

test("refuses a key that is reused with other parameters, or for another operation", async () => {
  await authorize("key-1");
  expect((await authorize("key-1", { amountMinor: "1251" })).status).toBe(422);
  expect((await post("/v1/voids", "key-1", { orderId: "order-1" })).status).toBe(422);
  expect(await authorizationsOf("order-1")).toEqual([expect.objectContaining({ status: "AUTHORIZED" })]);
});

test("declines pm_declined and every unknown token", async () => {
  expect(await authorize("key-1", { paymentMethod: "pm_declined" })).toEqual({
    status: 402,
    body: { status: "DECLINED", reason: "declined by the issuer" },
  });
  const unknown = await authorize("key-2", { paymentMethod: "pm_what" });
  expect(unknown).toEqual({ status: 402, body: { status: "DECLINED", reason: "unknown token" } });
  expect(await authorize("key-2", { paymentMethod: "pm_what" })).toEqual(unknown);
});

test("a void gives back all authorisations, can be repeated, and is final", async () => {
  await authorize("key-1");
  await authorize("key-2", { amountMinor: "50" });
  const voided = { status: 200, body: { orderId: "order-1", status: "VOIDED", voidedAmountMinor: "1300" } };
  expect(await post("/v1/voids", "void-1", { orderId: "order-1" })).toEqual(voided);
  expect(await post("/v1/voids", "void-1", { orderId: "order-1" })).toEqual(voided);
  expect(await post("/v1/voids", "void-2", { orderId: "order-1" })).toEqual(voided);
  expect(await authorize("key-3")).toEqual({ status: 409, body: { status: "VOIDED" } });
  expect(await authorize("key-1")).toEqual({ status: 409, body: { status: "VOIDED" } });
  expect((await authorizationsOf("order-1")).map((it) => it.status)).toEqual(["VOIDED", "VOIDED"]);
});

test("after a void of an unknown order, an authorisation of it is refused", async () => {
  expect((await post("/v1/voids", "void-1", { orderId: "order-9" })).body).toMatchObject({ voidedAmountMinor: "0" });
  expect((await authorize("key-1", { orderId: "order-9" })).status).toBe(409);
  expect((await look("/v1/orders/order-9")).body).toEqual({ orderId: "order-9", voided: true, authorizations: [] });
});

test("pm_timeout_charged charges and does not answer the first request, but the second, also after a restart", async () => {
  const charged = { paymentMethod: "pm_timeout_charged" };
  expect(authorize("key-1", charged, 200)).rejects.toThrow();
  await Bun.sleep(250);
  expect(await authorizationsOf("order-1")).toHaveLength(1);
  await gateway.close();
  gateway = open();
  expect((await authorize("key-1", charged)).status).toBe(200);
  expect(await authorizationsOf("order-1")).toHaveLength(1);
});

test("pm_timeout_not_charged neither charges nor answers the first request, but the second, also after a restart", async () => {
  const notCharged = { paymentMethod: "pm_timeout_not_charged" };
  expect(authorize("key-1", notCharged, 200)).rejects.toThrow();
  await Bun.sleep(250);
  expect(await authorizationsOf("order-1")).toHaveLength(0);
  expect((await look("/v1/authorizations/key-1")).status).toBe(404);
  await gateway.close();
  gateway = open();
  expect((await authorize("key-1", notCharged)).status).toBe(200);
  expect((await look("/v1/authorizations/key-1")).body).toMatchObject({ orderId: "order-1", status: "AUTHORIZED" });
});

test("pm_slow authorises after a second, unless the order is voided before", async () => {
  const startedAtMs = performance.now();
  const slow = authorize("key-1", { paymentMethod: "pm_slow" });
  const late = authorize("key-2", { orderId: "order-2", paymentMethod: "pm_slow" });
  await post("/v1/voids", "void-1", { orderId: "order-2" });
  expect((await slow).status).toBe(200);
  expect((await late).status).toBe(409);
  expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(990);
});

test("an invalid request is answered with the name of the invalid field", async () => {
  const wrong = async (body: unknown, key: string | undefined = "key-1") => {
    const answer = await post("/v1/authorizations", key, body);
    expect(answer.status).toBe(400);
    return String(answer.body.error);
  };
  expect(await wrong({ ...order, orderId: "" })).toStartWith("orderId ");
  expect(await wrong({ ...order, amountMinor: 1250 })).toStartWith("amountMinor ");
  expect(await wrong({ ...order, amountMinor: "0" })).toStartWith("amountMinor ");
  expect(await wrong({ ...order, currency: "euro" })).toStartWith("currency ");
  expect(await wrong({ ...order, paymentMethod: undefined })).toStartWith("paymentMethod ");
  expect(await wrong("no json")).toContain("JSON");
  const withoutKey = await post("/v1/authorizations", undefined, order);
  expect(withoutKey.status).toBe(400);
  expect(withoutKey.body.error).toContain("Idempotency-Key");
  expect(await authorizationsOf("order-1")).toHaveLength(0);
});

test("the ledger can be read page by page, with authorisations and voids", async () => {
  for (const number of [1, 2, 3]) await authorize(`key-${number}`, { orderId: `order-${number}` });
  await post("/v1/voids", "void-2", { orderId: "order-2" });
  const seen: LedgerEntry[] = [];
  for (let after: number | null = 0; after !== null; ) {
    const page = (await look(`/v1/ledger?after=${after}&limit=2`)).body as {
      entries: LedgerEntry[];
      nextAfter: number | null;
    };
    seen.push(...page.entries);
    after = page.nextAfter;
  }
  expect(seen.map((entry) => [entry.kind, entry.orderId, entry.status])).toEqual([
    ["AUTHORIZATION", "order-1", "AUTHORIZED"],
    ["AUTHORIZATION", "order-2", "VOIDED"],
    ["AUTHORIZATION", "order-3", "AUTHORIZED"],
    ["VOID", "order-2", "VOIDED"],
  ]);
});
