-- Those that hold a session hear it, those behind a pooler look at the count, which is outside of transactions: nobody waits
-- for anybody there.
-- name: notify
SELECT nextval('notification'), pg_notify($1, $2);

-- name: notifications
SELECT last_value + is_called::integer FROM notification;
