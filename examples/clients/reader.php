<?php
// Reads a user's inbox with long polls: every message once, through restarts of either side. PHP 8, no packages.
// HALLEY_URL: the client address. TOKEN_URL: your backend's token endpoint. CURSOR_FILE: where the cursor is kept.
$url = getenv('HALLEY_URL') ?: 'http://127.0.0.1:8100';
$file = getenv('CURSOR_FILE') ?: 'cursor';
$lastNumbers = []; // the newest `n` of each conversation and group

// An app stores the message here, and the cursor in the same transaction; then no crash repeats one.
function handle(array $message): void {
    global $lastNumbers;
    $pair = [$message['from'], $message['to'] ?? ''];
    sort($pair);
    $talk = isset($message['group']) ? "group {$message['group']}" : json_encode($pair);
    if (($lastNumbers[$talk] ?? $message['n'] - 1) !== $message['n'] - 1) {
        fwrite(STDERR, "a message is missing before {$message['id']}\n"); // read the history here
    }
    $lastNumbers[$talk] = $message['n'];
    echo json_encode($message), "\n";
}

function save(string $file, string $cursor): string {
    file_put_contents("$file.new", $cursor);
    rename("$file.new", $file);
    return $cursor;
}

/** Returns [status, Retry-After, body]; status 0 is: no connection. */
function get(string $url, string $token, int $seconds): array {
    $context = stream_context_create(['http' => ['header' => "Authorization: Bearer $token",
        'timeout' => $seconds, 'ignore_errors' => true]]);
    $body = @file_get_contents($url, false, $context);
    $head = implode("\n", $http_response_header ?? []);
    preg_match('/^HTTP\S+ (\d+)/', $head, $status);
    preg_match('/^Retry-After: (\d+)/mi', $head, $after);
    return [$body === false ? 0 : (int) ($status[1] ?? 0), (int) ($after[1] ?? 0), (string) $body];
}

[$cursor, $token, $pause] = [is_file($file) ? file_get_contents($file) : '0', '', 0.5];
while (true) {
    if ($token === '') {
        [$status, , $body] = get(getenv('TOKEN_URL'), '', 15);
        $token = $status === 200 ? trim($body) : '';
    }
    [$status, $after, $body] = $token === '' ? [0, 0, ''] : get("$url/v1/inbox?after=$cursor&wait=30", $token, 45);
    $page = json_decode($body, true);
    if ($status === 200 && isset($page['next'])) { // without `next` the reply was cut on the way
        array_map('handle', $page['messages']);
        [$cursor, $pause] = [save($file, $page['next']), 0.5];
        continue;
    }
    if ($status === 409 || $status === 410) { // another history, or one that begins later: go on from where it says
        $cursor = save($file, $status === 409 ? $page['restart'] : $page['first']);
    } elseif ($status === 401) {
        $token = ''; // expired: ask the backend for a fresh one
    } elseif ($status >= 400 && $status < 500 && $status !== 429) {
        exit("$status: $body\n"); // a fault of this program: do not repeat
    }
    usleep((int) (1e6 * max($after, $pause * random_int(50, 100) / 100)));
    $pause = min($pause * 2, 30);
}
