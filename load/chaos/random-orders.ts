import type { Random } from "../model/random.ts";

/** A PlaceOrder request. */
export interface OrderRequest {
  readonly requestId: string;
  readonly lines: readonly { readonly sku: string; readonly quantity: number }[];
  readonly paymentMethod: string;
}

/** Shares in percent; all others use `pm_ok`. */
const paymentMethods = [
  ["pm_declined", 8],
  ["pm_timeout_charged", 4],
  ["pm_timeout_not_charged", 4],
  ["pm_slow", 8],
] as const;
const outOfStockPercent = 6;
const skuCount = 1_000;
const linesMax = 3;

/** An order of one to three random SKUs. Some are out of stock, some payments are declined, slow or time out. */
export function drawOrder(random: Random): OrderRequest {
  const skus = new Set<string>();
  const linesCount = 1 + random.below(linesMax);
  while (skus.size < linesCount) skus.add(skuName(1 + random.below(skuCount)));
  if (random.chance(outOfStockPercent)) skus.add("sku-none");
  return {
    requestId: crypto.randomUUID(),
    lines: [...skus].map((sku) => ({ sku, quantity: 1 + random.below(2) })),
    paymentMethod: drawPaymentMethod(random),
  };
}

function drawPaymentMethod(random: Random): string {
  let draw = random.below(100);
  for (const [method, percent] of paymentMethods) {
    if (draw < percent) return method;
    draw -= percent;
  }
  return "pm_ok";
}

function skuName(number: number): string {
  return `sku-${String(number).padStart(4, "0")}`;
}
