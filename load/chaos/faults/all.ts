import { diskFull } from "./database.ts";
import type { FaultKind } from "./fault.ts";
import { gatewayErrors, gatewaySlow, gatewayThrottled, gatewayTimeouts } from "./gateway.ts";
import { halfOpen, latency, refused, reset } from "./network.ts";
import { frozenIntent } from "./payment-intent.ts";
import { brokerRestart, databaseRestart, freeze, kill } from "./processes.ts";
import { offsetsBack, producedAgain, rebalance } from "./redelivery.ts";

/** Every kind of fault. Their order matters: together with the seed it fixes the plan. */
export const faultKinds: readonly FaultKind[] = [
  kill,
  freeze,
  frozenIntent,
  latency,
  reset,
  halfOpen,
  refused,
  brokerRestart,
  databaseRestart,
  producedAgain,
  offsetsBack,
  rebalance,
  gatewayErrors,
  gatewayTimeouts,
  gatewaySlow,
  gatewayThrottled,
  diskFull,
];
