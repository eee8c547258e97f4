import { integer, port, readConfig, serviceSettings } from "../kit/config.ts";

/** Order's configuration. @throws ConfigError that names every faulty variable. */
export const readOrderConfig = (env: Readonly<Record<string, string | undefined>>) =>
  readConfig(env, {
    ...serviceSettings("order", 9464),
    httpPort: port("HTTP_PORT", 8080),
    grpcPort: port("GRPC_PORT", 8081),
    /** After this time an undecided order is timed out. */
    deadlineMs: integer("ORDER_DEADLINE_MS", { fallback: 300_000, min: 100, max: 86_400_000 }),
  });
