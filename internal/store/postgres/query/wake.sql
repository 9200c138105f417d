-- A count of what processes told each other. It is outside of transactions, so nobody waits for anybody.
-- name: notify
SELECT nextval('notification');

-- name: notifications
SELECT last_value + is_called::integer FROM notification;
