// Reads a user's inbox with long polls: every message once, through restarts of either side. Java 17 and gson.
// HALLEY_URL: the client address. TOKEN_URL: your backend's token endpoint. CURSOR_FILE: where the cursor is kept.
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.*;
import java.time.Duration;

public class Reader {
    static final HttpClient CLIENT = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();

    static HttpResponse<String> get(String url, String token) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(45))
                .header("Authorization", "Bearer " + token).build();
        return CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
    }

    static String save(Path file, String cursor) throws IOException {
        Path fresh = Files.writeString(file.resolveSibling(file.getFileName() + ".new"), cursor);
        Files.move(fresh, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
        return cursor;
    }

    public static void main(String[] arguments) throws Exception {
        Path file = Path.of(System.getenv("CURSOR_FILE"));
        String cursor = Files.exists(file) ? Files.readString(file) : "0", token = null;
        for (double pause = 0.5; ; pause = Math.min(pause * 2, 30)) {
            double wait = pause * (0.5 + Math.random() / 2);
            try {
                if (token == null) token = get(System.getenv("TOKEN_URL"), "").body().strip();
                var reply = get(System.getenv("HALLEY_URL") + "/v1/inbox?wait=30&after=" + cursor, token);
                int status = reply.statusCode();
                if (status == 200 || status == 409 || status == 410) {
                    JsonObject page = JsonParser.parseString(reply.body()).getAsJsonObject();
                    if (status == 200) { // an app stores the messages and the cursor in one transaction
                        for (JsonElement message : page.getAsJsonArray("messages")) System.out.println(message);
                        pause = wait = 0.25;
                    }
                    cursor = save(file, page.get(status == 200 ? "next" : status == 409 ? "restart" : "first").getAsString());
                    if (status == 200) continue;
                } else if (status == 401) {
                    token = null; // expired: ask the backend for a fresh one
                } else if (status >= 400 && status < 500 && status != 429) {
                    throw new IllegalStateException(status + " " + reply.body()); // a fault of this program
                }
                wait = Math.max(wait, Double.parseDouble(reply.headers().firstValue("Retry-After").orElse("0")));
            } catch (IOException | JsonParseException broken) {
                System.err.println("no connection: " + broken);
            }
            Thread.sleep((long) (1000 * wait));
        }
    }
}
