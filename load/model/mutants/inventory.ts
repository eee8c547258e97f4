/** Mutants of services/inventory/domain.ts. */
import type { ServiceMutant } from "./mutants.ts";

export const mutants: readonly ServiceMutant[] = [
  {
    name: "decides a redelivered order again unless it is held",
    from: `if (reservation.status !== "NONE") return [];`,
    to: `if (reservation.status === "HELD") return [];`,
  },
  {
    name: "decides a redelivered order again while it is held",
    from: `if (reservation.status !== "NONE") return [];`,
    to: `if (reservation.status !== "NONE" && reservation.status !== "HELD") return [];`,
  },
  {
    name: "leaves the first line out of a reservation",
    from: `[{ kind: "Reserved", lines }]`,
    to: `[{ kind: "Reserved", lines: lines.slice(1) }]`,
  },
  {
    name: "reserves an order although some of its lines are out of stock",
    from: `return shortages.length === 0 ?`,
    to: `return shortages.length < lines.length ?`,
  },
  {
    name: "reserves one piece more than is available",
    from: `return quantity > available ?`,
    to: `return quantity > available + 1 ?`,
  },
  {
    name: "never reserves the last piece",
    from: `return quantity > available ?`,
    to: `return quantity >= available ?`,
  },
  {
    name: "releases nothing after a declined payment",
    from: `[{ kind: "Released", lines: reservation.lines }]`,
    to: `[]`,
  },
  {
    name: "releases after a declined payment what a cancel has released",
    from: `return reservation.status === "HELD" ? [{ kind: "Released"`,
    to: `return "lines" in reservation ? [{ kind: "Released"`,
  },
  {
    name: "releases twice if PaymentFailed is redelivered",
    from: `return reservation.status === "HELD" ? [{ kind: "Released"`,
    to: `return reservation.status === "HELD" || reservation.status === "RELEASED" ? [{ kind: "Released"`,
  },
  {
    name: "sells twice if OrderCompleted is redelivered",
    from: `return reservation.status === "HELD" ? [{ kind: "Sold"`,
    to: `return "lines" in reservation ? [{ kind: "Sold"`,
  },
  {
    name: "leaves sold pieces held",
    from: `move(stock, fact.lines, "held", "sold")`,
    to: `move(stock, fact.lines, "available", "sold")`,
  },
  {
    name: "releases nothing on a cancel",
    from: `return [{ kind: "Cancelled", lines: reservation.lines }];`,
    to: `return [{ kind: "Cancelled", lines: [] }];`,
  },
  {
    name: "releases on a cancel what a declined payment has released",
    from: `        case "RELEASED":
          // Order waits`,
    to: `          return [{ kind: "Cancelled", lines: [] }];
        case "RELEASED":
          return [{ kind: "Cancelled", lines: reservation.lines }];
          // Order waits`,
  },
  {
    name: "does not answer a cancel if nothing is held",
    from: `return [{ kind: "Cancelled", lines: [] }];`,
    to: `return [];`,
  },
  {
    name: "does not remember a cancel",
    from: `reservation: { orderId, status: "CANCELLED", lines },`,
    to: `reservation: { orderId, status: "NONE" },`,
  },
  {
    name: "cancels a reservation but leaves its pieces held",
    from: `reservation: { orderId, status: "CANCELLED", lines },
        stock: move(stock, fact.lines, "held", "available"),`,
    to: `reservation: { orderId, status: "CANCELLED", lines },
        stock,`,
  },
  {
    name: "publishes no event for a release after a declined payment",
    from: `    case "Released":
    case "Cancelled":
      return create`,
    to: `    case "Released":
      return undefined;
    case "Cancelled":
      return create`,
  },
  {
    name: "does not read the stock levels of held lines",
    from: `return reservation.status === "HELD" ? reservation.lines.map(({ sku }) => sku) : [];`,
    to: `return [];`,
  },
];
