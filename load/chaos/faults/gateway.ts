/** A payment gateway that fails, hangs, is slow or throttles. */
import { sleep } from "../../../services/kit/backoff.ts";
import type { GatewayFault } from "../faulty-gateway.ts";
import { type FaultKind, until, untilBusy, witnessed } from "./fault.ts";

const faultMinMs = 2_000;
const callsMin = 3;
const callsTimeoutMs = 15_000;

export const gatewayErrors = gatewayFault("gateway 5xx", "5xx");
export const gatewayTimeouts = gatewayFault("gateway timeouts", "timeout");
export const gatewaySlow = gatewayFault("gateway slow", "slow");
export const gatewayThrottled = gatewayFault("gateway throttled", "throttled");

function gatewayFault(name: string, fault: GatewayFault): FaultKind {
  return {
    name,
    targets: ["gateway"],
    async strike({ stack }) {
      const { faultyGateway, gatewayPorts, processes } = stack;
      const links = stack.links.all("payment → gateway");
      const retarget = (port: number) => {
        for (const { proxy } of links) proxy.retarget(port);
      };
      const notFinal = await untilBusy(stack);
      const affectedBefore = faultyGateway.affected();
      const payments = stack.links.clientsOf("payment");
      const unknown = () => processes.metricOf(payments, "payment_gateway_calls_total", { outcome: "unknown" });
      const unknownBefore = await unknown();
      retarget(gatewayPorts.faulty);
      faultyGateway.inject(fault);
      await sleep(faultMinMs);
      await until(async () => faultyGateway.affected() - affectedBefore >= callsMin, callsTimeoutMs);
      retarget(gatewayPorts.real);
      faultyGateway.inject(undefined);
      return witnessed(
        [
          [faultyGateway.affected() - affectedBefore, "calls hit"],
          [notFinal, "orders not final"],
        ],
        `payment counted ${(await unknown()) - unknownBefore} unknown outcomes`,
      );
    },
  };
}
