<?php
// A chat app's backend: logs people in, gives them tokens, keeps rooms, sends. PHP 8, no packages.
// HALLEY_ADMIN_KEY=$(cat data/admin.key) PHP_CLI_SERVER_WORKERS=8 php -S 127.0.0.1:3000 examples/chat/backend.php
function answer(int $status, mixed $body, string $type = 'application/json'): never {
    http_response_code($status);
    header("Content-Type: $type");
    exit($type === 'application/json' ? json_encode($body) : $body);
}

function halley(string $method, string $path, mixed $body = null, string $header = ''): array {
    $reply = @file_get_contents((getenv('HALLEY_ADMIN') ?: 'http://127.0.0.1:8000') . $path, false,
        stream_context_create(['http' => [
            'method' => $method,
            'header' => 'Authorization: Bearer ' . getenv('HALLEY_ADMIN_KEY') . "\r\nContent-Type: application/json\r\n$header",
            'content' => $body === null ? '' : json_encode($body),
            'timeout' => 30,
            'ignore_errors' => true, // a refusal has a body, too
        ]]));
    $status = (int) substr($http_response_header[0] ?? 'HTTP/1.1 503', 9, 3);
    $answer = json_decode((string) $reply, true) ?? [];
    if ($status >= 300) {
        answer($status, ['error' => $answer['detail'] ?? 'Halley does not answer']);
    }
    return $answer;
}

function check(mixed $value, string $pattern, string $rule): string {
    return is_string($value) && preg_match($pattern, $value) ? $value : answer(400, ['error' => $rule]);
}

function name_of(mixed $value): string {
    return check($value, '/^[A-Za-z0-9_-]{1,32}$/D', 'a name has 1 to 32 letters, digits, - and _');
}

session_start(['cookie_httponly' => true, 'cookie_samesite' => 'Strict']);
$user = $_SESSION['user'] ?? null; // your app has its own accounts and sessions
session_write_close();
$body = json_decode(file_get_contents('php://input'), true) ?? [];
$route = $_SERVER['REQUEST_METHOD'] . ' ' . parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($user === null && !in_array($route, ['GET /', 'GET /session', 'POST /login'])) {
    answer(401, ['error' => 'log in first']);
}
switch ($route) {
    case 'GET /':
        answer(200, file_get_contents(__DIR__ . '/index.html'), 'text/html; charset=utf-8');
    case 'GET /session': // also: where browsers find Halley
        answer(200, ['user' => $user, 'halley' => getenv('HALLEY_URL') ?: 'http://127.0.0.1:8100']);
    case 'GET /token': // halley.js asks for it again before it expires
        answer(200, halley('POST', '/v1/tokens', ['user' => $user, 'ttl_s' => 3600])['token'], 'text/plain');
    case 'POST /login':
        session_start();
        session_regenerate_id();
        $_SESSION['user'] = name_of($body['user'] ?? null); // your app checks a password here
        answer(200, []);
    case 'POST /rooms': // makes the room if there is none, and joins it
        $room = name_of($body['room'] ?? null);
        halley('PUT', "/v1/groups/$room", new stdClass());
        answer(200, halley('PUT', "/v1/groups/$room/members/$user"));
    case 'POST /messages':
        $room = isset($body['room']) ? name_of($body['room']) : null;
        if ($room !== null && !in_array($user, halley('GET', "/v1/groups/$room")['members'])) {
            answer(403, ['error' => 'join the room first']);
        }
        $path = $room !== null ? "/v1/groups/$room/messages" : '/v1/direct/' . name_of($body['to'] ?? null) . '/messages';
        $text = check($body['text'] ?? null, '/^.{1,4000}$/Dsu', 'a text has 1 to 4000 characters');
        // With the key, a repeated request is stored once.
        $key = check($body['key'] ?? null, '/^[A-Za-z0-9_-]{1,64}$/D', 'a key has 1 to 64 letters, digits, - and _');
        answer(201, halley('POST', $path, ['from' => $user, 'body' => ['text' => $text]], "Idempotency-Key: $user-$key\r\n"));
    default:
        answer(404, ['error' => 'there is no such page']);
}
