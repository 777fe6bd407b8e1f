// Reads a user's inbox with long polls: every message once, through restarts of either side. Kotlin, org.json
// (Android has it). Run it in a foreground service or a worker; where the app sleeps, Apple's or Google's push wakes it.
import java.io.File
import java.io.IOException
import java.net.HttpURLConnection
import java.net.URL
import kotlin.random.Random
import org.json.JSONException
import org.json.JSONObject

class Reply(val status: Int, val retryAfter: Double, val body: String)

fun get(url: String, token: String): Reply {
    val connection = URL(url).openConnection() as HttpURLConnection
    connection.connectTimeout = 10_000
    connection.readTimeout = 45_000 // a poll is held for up to 30 s
    connection.setRequestProperty("Authorization", "Bearer $token")
    try {
        val status = connection.responseCode
        val stream = if (status < 400) connection.inputStream else connection.errorStream
        val retryAfter = connection.getHeaderField("Retry-After")?.toDoubleOrNull() ?: 0.0
        return Reply(status, retryAfter, stream?.bufferedReader()?.readText() ?: "")
    } finally {
        connection.disconnect()
    }
}

/** `store` keeps the messages and the cursor in one transaction; then no crash loses or repeats one. */
fun read(url: String, tokenUrl: String, saved: String, store: (List<JSONObject>, String) -> Unit) {
    var cursor = saved // "0" at the first start: everything
    var token: String? = null
    var pause = 0.5
    while (true) {
        var wait = pause * Random.nextDouble(0.5, 1.0)
        try {
            val known = token ?: get(tokenUrl, "").body.trim().also { token = it }
            val reply = get("$url/v1/inbox?wait=30&after=$cursor", known)
            when (reply.status) {
                200 -> {
                    val page = JSONObject(reply.body)
                    val messages = page.getJSONArray("messages")
                    cursor = page.getString("next")
                    store((0 until messages.length()).map { messages.getJSONObject(it) }, cursor)
                    pause = 0.25
                    wait = 0.0
                }
                409 -> cursor = JSONObject(reply.body).getString("restart") // another history
                410 -> cursor = JSONObject(reply.body).getString("first") // one that begins later
                401 -> token = null // expired: ask the backend for a fresh one
                429, in 500..599 -> wait = maxOf(wait, reply.retryAfter)
                else -> error("${reply.status} ${reply.body}") // a fault of this program: do not repeat
            }
        } catch (broken: IOException) { // no connection
        } catch (broken: JSONException) { // the reply was cut on the way
        }
        Thread.sleep((1000 * wait).toLong())
        pause = minOf(pause * 2, 30.0)
    }
}
