CREATE TABLE `order_inbox_event` (
	`event_id` char(36) NOT NULL,
	`aggregate_id` varchar(128) NOT NULL,
	`type` varchar(128) NOT NULL,
	`source` varchar(128) NOT NULL,
	`occurred_at` timestamp(3) NOT NULL,
	`published_at` timestamp(3) NOT NULL,
	`topic_partition` int unsigned NOT NULL,
	`topic_offset` bigint unsigned NOT NULL,
	`handled_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`batch_id` char(36) NOT NULL,
	`outcome` varchar(20) NOT NULL,
	CONSTRAINT `order_inbox_event_event_id` PRIMARY KEY(`event_id`)
);
--> statement-breakpoint
CREATE TABLE `orders` (
	`order_id` char(36) NOT NULL,
	`owner` varchar(128) NOT NULL,
	`request_id` char(36) NOT NULL,
	`status` varchar(20) NOT NULL,
	`failure_reason` varchar(20),
	`awaits_stock` boolean NOT NULL DEFAULT false,
	`awaits_payment` boolean NOT NULL DEFAULT false,
	`version` int unsigned NOT NULL,
	`lines_json` text NOT NULL,
	`currency_code` char(3) NOT NULL,
	`total_minor` bigint NOT NULL,
	`payment_method` varchar(64) NOT NULL,
	`cancel_reason` varchar(500),
	`traceparent` varchar(64),
	`deadline_at` timestamp(3),
	`created_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`updated_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	CONSTRAINT `orders_order_id` PRIMARY KEY(`order_id`),
	CONSTRAINT `orders_owner_request_id` UNIQUE(`owner`,`request_id`)
);
--> statement-breakpoint
CREATE TABLE `order_outbox_event` (
	`id` char(36) NOT NULL,
	`aggregate_id` varchar(128) NOT NULL,
	`type` varchar(128) NOT NULL,
	`payload` mediumtext NOT NULL,
	`headers` text,
	`occurred_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`status` varchar(20) NOT NULL DEFAULT 'PENDING',
	`retry_count` smallint unsigned NOT NULL DEFAULT 0,
	`last_error` text,
	`published_at` timestamp(3),
	`seq` bigint unsigned AUTO_INCREMENT NOT NULL,
	`next_attempt_at` timestamp(3),
	CONSTRAINT `order_outbox_event_id` PRIMARY KEY(`id`),
	CONSTRAINT `order_outbox_event_seq` UNIQUE(`seq`)
);
--> statement-breakpoint
CREATE TABLE `order_outbox_event_archive` (
	`id` char(36) NOT NULL,
	`aggregate_id` varchar(128) NOT NULL,
	`type` varchar(128) NOT NULL,
	`payload` mediumtext NOT NULL,
	`headers` text,
	`occurred_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`status` varchar(20) NOT NULL DEFAULT 'PENDING',
	`retry_count` smallint unsigned NOT NULL DEFAULT 0,
	`last_error` text,
	`published_at` timestamp(3),
	`seq` bigint unsigned NOT NULL,
	`archived_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`discarded_by` varchar(128),
	`discard_reason` varchar(500),
	CONSTRAINT `order_outbox_event_archive_id` PRIMARY KEY(`id`),
	CONSTRAINT `order_outbox_event_archive_seq` UNIQUE(`seq`)
);
--> statement-breakpoint
CREATE TABLE `order_parked_event` (
	`event_id` char(36) NOT NULL,
	`position` bigint unsigned AUTO_INCREMENT NOT NULL,
	`aggregate_id` varchar(128) NOT NULL,
	`type` varchar(128) NOT NULL,
	`source` varchar(128) NOT NULL,
	`occurred_at` timestamp(3),
	`published_at` timestamp(3) NOT NULL,
	`topic_partition` int unsigned NOT NULL,
	`topic_offset` bigint unsigned NOT NULL,
	`record_key` longblob,
	`headers` mediumtext NOT NULL,
	`payload` longblob,
	`error` text,
	`parked_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	CONSTRAINT `order_parked_event_event_id` PRIMARY KEY(`event_id`),
	CONSTRAINT `order_parked_event_position` UNIQUE(`position`)
);
--> statement-breakpoint
CREATE TABLE `order_parked_key` (
	`aggregate_id` varchar(128) NOT NULL,
	`event_id` char(36) NOT NULL,
	`reason` varchar(20) NOT NULL,
	`error` text NOT NULL,
	`attempts` int unsigned NOT NULL,
	`parked_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`failed_at` timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
	`replay_requested_at` timestamp(3),
	CONSTRAINT `order_parked_key_aggregate_id` PRIMARY KEY(`aggregate_id`)
);
--> statement-breakpoint
CREATE TABLE `price` (
	`sku` varchar(64) NOT NULL,
	`currency_code` char(3) NOT NULL,
	`minor_units` bigint NOT NULL,
	CONSTRAINT `price_sku` PRIMARY KEY(`sku`)
);
--> statement-breakpoint
CREATE INDEX `order_inbox_event_aggregate_id` ON `order_inbox_event` (`aggregate_id`);--> statement-breakpoint
CREATE INDEX `order_inbox_event_handled_at` ON `order_inbox_event` (`handled_at`);--> statement-breakpoint
CREATE INDEX `orders_deadline_at` ON `orders` (`deadline_at`);--> statement-breakpoint
CREATE INDEX `order_outbox_event_status_seq` ON `order_outbox_event` (`status`,`seq`);--> statement-breakpoint
CREATE INDEX `order_outbox_event_aggregate_id` ON `order_outbox_event` (`aggregate_id`,`seq`);--> statement-breakpoint
CREATE INDEX `order_outbox_event_archive_aggregate_id` ON `order_outbox_event_archive` (`aggregate_id`,`seq`);--> statement-breakpoint
CREATE INDEX `order_outbox_event_archive_archived_at` ON `order_outbox_event_archive` (`archived_at`);--> statement-breakpoint
CREATE INDEX `order_parked_event_aggregate_id` ON `order_parked_event` (`aggregate_id`,`position`);--> statement-breakpoint
CREATE INDEX `order_parked_key_replay_requested_at` ON `order_parked_key` (`replay_requested_at`);