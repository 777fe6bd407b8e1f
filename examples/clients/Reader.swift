// Reads a user's inbox with long polls: every message once, through restarts of either side. Swift 5.5, Foundation.
// While the app is in the foreground; where it sleeps, Apple's push wakes it.
import Foundation
#if canImport(FoundationNetworking)
import FoundationNetworking
#endif

struct Page: Decodable {
    let next: String?, restart: String?, first: String? // of 200, 409 and 410: where to go on
}

func get(_ url: String, _ token: String) async throws -> (status: Int, retryAfter: Double, body: Data) {
    var request = URLRequest(url: URL(string: url)!, timeoutInterval: 45) // a poll is held for up to 30 s
    request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization")
    request.cachePolicy = .reloadIgnoringLocalCacheData
    let (body, response) = try await URLSession.shared.data(for: request)
    let reply = response as! HTTPURLResponse
    return (reply.statusCode, Double(reply.value(forHTTPHeaderField: "Retry-After") ?? "0") ?? 0, body)
}

struct Refused: Error { let status: Int, body: String }

/// `store` keeps the page's messages and the cursor in one transaction; then no crash loses or repeats one.
func read(url: String, tokenUrl: String, from saved: String, store: (Data, String) throws -> Void) async throws {
    var cursor = saved // "0" at the first start: everything
    var token: String?
    var pause = 0.5
    while !Task.isCancelled {
        var wait = pause * Double.random(in: 0.5...1)
        pause = min(pause * 2, 30)
        do {
            if token == nil {
                token = String(decoding: try await get(tokenUrl, "").body, as: UTF8.self)
            }
            let reply = try await get("\(url)/v1/inbox?wait=30&after=\(cursor)", token!)
            switch reply.status {
            case 200, 409, 410:
                let page = try JSONDecoder().decode(Page.self, from: reply.body)
                guard let next = page.next ?? page.restart ?? page.first else { break }
                try store(reply.status == 200 ? reply.body : Data(#"{"messages":[]}"#.utf8), next)
                cursor = next
                if reply.status == 200 { (pause, wait) = (0.5, 0) }
            case 401:
                token = nil // expired: ask the backend for a fresh one
            case 429, 500...599:
                wait = max(wait, reply.retryAfter)
            default: // a fault of this program: do not repeat
                throw Refused(status: reply.status, body: String(decoding: reply.body, as: UTF8.self))
            }
        } catch is URLError { // no connection
        } catch is DecodingError { // the reply was cut on the way
        }
        try await Task.sleep(nanoseconds: UInt64(wait * 1e9))
    }
}
