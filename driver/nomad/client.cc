#include "driver/nomad/client.h"

#include <curl/curl.h>
#include <string.h>

#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

namespace jenkins_agent::nomad {
namespace {

constexpr long kConnectTimeoutSeconds = 10;
constexpr long kTimeoutSeconds = 120;
constexpr size_t kMaxErrorText = 300;  // of Nomad's own words in a message
constexpr int kPollMilliseconds = 1000;
// What is read from a connection at once, libcurl's most: a list of 60 MB takes 4000 calls with its
// default of 16 KiB.
constexpr long kReceiveBytes = 512 << 10;

struct FreeEasy {
  void operator()(CURL* easy) const { ::curl_easy_cleanup(easy); }
};
using Easy = std::unique_ptr<CURL, FreeEasy>;

// One request and what came for it.
struct Transfer {
  Easy easy;
  std::array<char, CURL_ERROR_SIZE> error = {};  // libcurl's words
  Answer answer;
  bool too_long = false;
  // With it the body is not kept; its error ends the transfer.
  std::function<absl::Status(absl::string_view)> on_piece;
  absl::Status status;
};

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  const absl::string_view piece(data, size * count);
  long code = 0;
  ::curl_easy_getinfo(transfer.easy.get(), CURLINFO_RESPONSE_CODE, &code);
  if (transfer.on_piece && code == 200) {
    transfer.status = transfer.on_piece(piece);
    return transfer.status.ok() ? piece.size() : 0;
  }
  if (transfer.answer.body.size() + piece.size() > kMaxAnswerBytes) {
    transfer.too_long = true;
    return 0;
  }
  transfer.answer.body.append(piece.data(), piece.size());
  return piece.size();
}

size_t OnHeader(char* data, size_t size, size_t count, void* user) {
  constexpr absl::string_view kNextToken = "x-nomad-nexttoken:";
  const absl::string_view line(data, size * count);
  if (absl::StartsWithIgnoreCase(line, kNextToken)) {
    static_cast<Transfer*>(user)->answer.next_token =
        std::string(absl::StripAsciiWhitespace(line.substr(kNextToken.size())));
  }
  return line.size();
}

// Nomad's API answers with JSON or plain text and sends nobody elsewhere: so does a proxy, a web
// server, or Nomad's own web interface. Empty: it is Nomad's answer.
std::string WhyNotNomads(const Transfer& transfer, long code) {
  char* type = nullptr;
  ::curl_easy_getinfo(transfer.easy.get(), CURLINFO_CONTENT_TYPE, &type);
  if (type != nullptr && absl::StartsWithIgnoreCase(type, "text/html")) {
    return absl::StrCat("a web page comes, not an answer of Nomad's API (HTTP status ", code,
                        "); is this Nomad's address, without a path such as /ui?");
  }
  if (code >= 300 && code < 400) {
    return absl::StrCat("leads to another address (HTTP status ", code,
                        "), which is not followed; is this Nomad's own address?");
  }
  return "";
}

// Nomad's errors are plain text; one printable line of it.
std::string ErrorText(absl::string_view body, long code) {
  std::string text(absl::StripAsciiWhitespace(body.substr(0, kMaxErrorText)));
  for (char& c : text) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = ' ';
  }
  return text.empty() ? absl::StrCat("HTTP status ", code) : text;
}

// Which of Nomad's variables may be wrong.
const char* TlsHint(CURLcode result) {
  switch (result) {
    case CURLE_SSL_CONNECT_ERROR:
      return " (without TLS there NOMAD_ADDR begins with http://; who asks for a certificate gets "
             "NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY)";
    case CURLE_PEER_FAILED_VERIFICATION:
      return " (NOMAD_CACERT: who signed its certificate; NOMAD_TLS_SERVER_NAME: the name in it)";
    default:
      return "";
  }
}

absl::Status StatusOf(const Transfer& transfer, CURLcode result) {
  if (!transfer.status.ok()) return transfer.status;
  if (transfer.too_long) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the answer is longer than ", kMaxAnswerBytes >> 20, " MiB"));
  }
  if (result != CURLE_OK) {
    long error_number = 0;
    ::curl_easy_getinfo(transfer.easy.get(), CURLINFO_OS_ERRNO, &error_number);
    if (result == CURLE_COULDNT_CONNECT && error_number != 0) {
      return absl::UnavailableError(::strerror(static_cast<int>(error_number)));
    }
    const std::string words = transfer.error.data();
    return absl::UnavailableError(absl::StrCat(
        words.empty() ? ::curl_easy_strerror(result) : ErrorText(words, 0), TlsHint(result)));
  }
  long code = 0;
  ::curl_easy_getinfo(transfer.easy.get(), CURLINFO_RESPONSE_CODE, &code);
  if (std::string why = WhyNotNomads(transfer, code); !why.empty()) {
    return absl::UnavailableError(why);
  }
  if (code == 200) return absl::OkStatus();
  const std::string text = ErrorText(transfer.answer.body, code);
  if (code == 403) return absl::PermissionDeniedError(text);
  if (code == 404) return absl::NotFoundError(text);
  if (code == 429) return absl::ResourceExhaustedError(text);
  if (code >= 400 && code < 500) return absl::InvalidArgumentError(text);
  return absl::UnavailableError(text);
}

struct FreeList {
  void operator()(curl_slist* list) const { ::curl_slist_free_all(list); }
};
using List = std::unique_ptr<curl_slist, FreeList>;

// A url, and where to connect to for it.
struct Route {
  std::string url;
  List connect_to;  // null: to where the url says
};

std::string Part(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (::curl_url_get(url, part, &text, flags) != CURLUE_OK) return "";
  const std::string copy = text;
  ::curl_free(text);
  return copy;
}

// With a TLS server name the certificate is checked against that name, and the connection still
// goes to the address: for libcurl the name is the url's host.
Route RouteOf(const Endpoint& endpoint) {
  Route route{endpoint.url, nullptr};
  if (endpoint.tls_server_name.empty() || !absl::StartsWith(endpoint.url, "https:")) return route;
  const std::unique_ptr<CURLU, void (*)(CURLU*)> url(::curl_url(), &::curl_url_cleanup);
  if (::curl_url_set(url.get(), CURLUPART_URL, endpoint.url.c_str(), 0) != CURLUE_OK) return route;
  const std::string port = Part(url.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
  const std::string host = Part(url.get(), CURLUPART_HOST);
  route.connect_to.reset(::curl_slist_append(
      nullptr, absl::StrCat(endpoint.tls_server_name, ":", port, ":", host, ":", port).c_str()));
  route.url = absl::StrCat("https://", endpoint.tls_server_name, ":", port);
  return route;
}

// A transfer that is under way as long as this lives.
class Running {
 public:
  Running(CURLM* multi, std::unique_ptr<Transfer> transfer)
      : multi_(multi), transfer_(std::move(transfer)) {
    ::curl_multi_add_handle(multi_, transfer_->easy.get());
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() { ::curl_multi_remove_handle(multi_, transfer_->easy.get()); }

  Transfer& operator*() const { return *transfer_; }

 private:
  CURLM* const multi_;
  const std::unique_ptr<Transfer> transfer_;
};

class CurlClient : public Client {
 public:
  explicit CurlClient(const Endpoint& endpoint)
      : endpoint_(endpoint), route_(RouteOf(endpoint)), multi_(::curl_multi_init()) {
    headers_ = ::curl_slist_append(headers_, "Content-Type: application/json");
    if (!endpoint.token.empty()) {
      headers_ =
          ::curl_slist_append(headers_, absl::StrCat("X-Nomad-Token: ", endpoint.token).c_str());
    }
  }
  ~CurlClient() override {
    ::curl_multi_cleanup(multi_);
    ::curl_slist_free_all(headers_);
  }

  const Endpoint& endpoint() const override { return endpoint_; }

  absl::StatusOr<Answer> Get(const std::string& path, const Query& query) override {
    return Finish(Running(multi_, Prepare(path, query)));
  }

  absl::StatusOr<Answer> Put(const std::string& path, const std::string& body) override {
    std::unique_ptr<Transfer> transfer = Prepare(path, {});
    ::curl_easy_setopt(transfer->easy.get(), CURLOPT_CUSTOMREQUEST, "PUT");
    ::curl_easy_setopt(transfer->easy.get(), CURLOPT_POSTFIELDSIZE_LARGE,
                       static_cast<curl_off_t>(body.size()));
    ::curl_easy_setopt(transfer->easy.get(), CURLOPT_POSTFIELDS, body.c_str());
    return Finish(Running(multi_, std::move(transfer)));
  }

  absl::Status GetPages(const std::string& path, const Query& query, int per_page,
                        const std::function<absl::Status(const std::string&)>& take) override {
    Query page_query = query;
    page_query.emplace_back("per_page", absl::StrCat(per_page));
    auto coming = std::make_unique<Running>(multi_, Prepare(path, page_query));
    for (size_t page = 0; page < kMaxPages; ++page) {
      ASSIGN_OR_RETURN(const Answer answer, Finish(*coming));
      coming.reset();
      if (!answer.next_token.empty()) {
        Query next_query = page_query;
        next_query.emplace_back("next_token", answer.next_token);
        coming = std::make_unique<Running>(multi_, Prepare(path, next_query));
        int running = 0;
        ::curl_multi_perform(multi_, &running);  // sends the request; Finish() tells what failed
      }
      RETURN_IF_ERROR(take(answer.body));
      if (coming == nullptr) return absl::OkStatus();
    }
    return absl::ResourceExhaustedError("the list has no end");
  }

  std::vector<absl::StatusOr<Answer>> GetAll(const std::vector<std::string>& paths) override {
    std::vector<std::unique_ptr<Transfer>> transfers;
    std::vector<absl::StatusOr<Answer>> answers(paths.size(), absl::UnknownError(""));
    std::map<CURL*, size_t> running;
    size_t next = 0;
    transfers.resize(paths.size());
    while (next < paths.size() || !running.empty()) {
      while (next < paths.size() && running.size() < kMaxParallel) {
        transfers[next] = Prepare(paths[next], {});
        CURL* const easy = transfers[next]->easy.get();
        ::curl_multi_add_handle(multi_, easy);
        running[easy] = next++;
      }
      const absl::Status status = Drive(kPollMilliseconds, [&](CURL* easy, CURLcode result) {
        const size_t index = running.at(easy);
        running.erase(easy);
        ::curl_multi_remove_handle(multi_, easy);
        const absl::Status outcome = StatusOf(*transfers[index], result);
        if (outcome.ok())
          answers[index] = std::move(transfers[index]->answer);
        else
          answers[index] = outcome;
        transfers[index].reset();
      });
      if (status.ok()) continue;
      for (const auto& [easy, index] : running) {
        ::curl_multi_remove_handle(multi_, easy);
        answers[index] = status;
      }
      return answers;
    }
    return answers;
  }

  absl::Status Stream(const std::string& path, const Query& query,
                      std::chrono::milliseconds quiet_after,
                      const std::function<absl::Status(absl::string_view)>& on_line,
                      const std::function<absl::Status()>& on_quiet) override {
    std::unique_ptr<Transfer> prepared = Prepare(path, query);
    ::curl_easy_setopt(prepared->easy.get(), CURLOPT_TIMEOUT, 0L);
    std::string rest;
    auto last = std::chrono::steady_clock::now();
    prepared->on_piece = [&](absl::string_view piece) {
      rest.append(piece.data(), piece.size());
      last = std::chrono::steady_clock::now();
      size_t end = 0;
      while ((end = rest.find('\n')) != std::string::npos) {
        RETURN_IF_ERROR(on_line(absl::string_view(rest).substr(0, end)));
        rest.erase(0, end + 1);
      }
      if (rest.size() > kMaxAnswerBytes) return absl::ResourceExhaustedError("a line without end");
      return absl::OkStatus();
    };
    const Running stream(multi_, std::move(prepared));
    bool done = false;
    CURLcode result = CURLE_OK;
    while (!done) {
      RETURN_IF_ERROR(Drive(static_cast<int>(quiet_after.count()), [&](CURL*, CURLcode code) {
        done = true;
        result = code;
      }));
      if (std::chrono::steady_clock::now() - last < quiet_after) continue;
      RETURN_IF_ERROR(on_quiet());
      last = std::chrono::steady_clock::now();
    }
    RETURN_IF_ERROR(StatusOf(*stream, result));
    return absl::UnavailableError("Nomad ended the event stream");
  }

 private:
  std::string Url(const std::string& path, const Query& query) const {
    std::string url = absl::StrCat(route_.url, path);
    char separator = absl::StrContains(path, '?') ? '&' : '?';
    bool has_namespace = absl::StrContains(path, "namespace=");
    for (const auto& [key, value] : query) {
      absl::StrAppend(&url, std::string(1, separator), key, "=", Escape(value));
      separator = '&';
      has_namespace |= key == "namespace";
    }
    if (!has_namespace && !endpoint_.name_space.empty()) {
      absl::StrAppend(&url, std::string(1, separator), "namespace=", Escape(endpoint_.name_space));
      separator = '&';
    }
    if (!endpoint_.region.empty()) {
      absl::StrAppend(&url, std::string(1, separator), "region=", Escape(endpoint_.region));
    }
    return url;
  }

  std::unique_ptr<Transfer> Prepare(const std::string& path, const Query& query) {
    auto transfer = std::make_unique<Transfer>();
    transfer->easy.reset(::curl_easy_init());
    CURL* const easy = transfer->easy.get();
    ::curl_easy_setopt(easy, CURLOPT_URL, Url(path, query).c_str());
    ::curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    ::curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_);
    ::curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    ::curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error.data());
    ::curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, kConnectTimeoutSeconds);
    ::curl_easy_setopt(easy, CURLOPT_TIMEOUT, kTimeoutSeconds);
    ::curl_easy_setopt(easy, CURLOPT_USERAGENT, "nomad-driver-jenkins-agent");
    ::curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &OnHeader);
    ::curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer.get());
    ::curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &OnBody);
    ::curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer.get());
    ::curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer.get());
    ::curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kReceiveBytes);
    SetConnection(easy);
    return transfer;
  }

  void SetConnection(CURL* easy) {
    const auto set = [easy](CURLoption option, const std::string& value) {
      if (!value.empty()) ::curl_easy_setopt(easy, option, value.c_str());
    };
    set(CURLOPT_UNIX_SOCKET_PATH, endpoint_.unix_socket);
    set(CURLOPT_USERPWD, endpoint_.http_auth);
    set(CURLOPT_CAINFO, endpoint_.ca_file);
    set(CURLOPT_CAPATH, endpoint_.ca_path);
    set(CURLOPT_SSLCERT, endpoint_.client_cert);
    set(CURLOPT_SSLKEY, endpoint_.client_key);
    ::curl_easy_setopt(easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    if (endpoint_.skip_verify) {
      ::curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
      ::curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (route_.connect_to != nullptr) {
      ::curl_easy_setopt(easy, CURLOPT_CONNECT_TO, route_.connect_to.get());
    }
  }

  // Until it has ended; whether it was on its way before or not.
  absl::StatusOr<Answer> Finish(const Running& running) {
    bool done = false;
    CURLcode result = CURLE_OK;
    while (!done) {
      RETURN_IF_ERROR(Drive(kPollMilliseconds, [&](CURL*, CURLcode code) {
        done = true;
        result = code;
      }));
    }
    RETURN_IF_ERROR(StatusOf(*running, result));
    return std::move((*running).answer);
  }

  // Lets transfers go on, tells those that ended, and waits for more when none did.
  absl::Status Drive(int milliseconds, const std::function<void(CURL*, CURLcode)>& on_end) {
    int running = 0;
    if (const CURLMcode error = ::curl_multi_perform(multi_, &running); error != CURLM_OK) {
      return absl::InternalError(::curl_multi_strerror(error));
    }
    bool ended = false;
    int left = 0;
    while (const CURLMsg* message = ::curl_multi_info_read(multi_, &left)) {
      ended = true;
      // Removing the handle makes the message invalid.
      CURL* const easy = message->easy_handle;
      const CURLcode result = message->data.result;
      on_end(easy, result);
    }
    if (ended) return absl::OkStatus();
    if (const CURLMcode error = ::curl_multi_poll(multi_, nullptr, 0, milliseconds, nullptr);
        error != CURLM_OK) {
      return absl::InternalError(::curl_multi_strerror(error));
    }
    return absl::OkStatus();
  }

  const Endpoint endpoint_;
  const Route route_;
  CURLM* const multi_;
  curl_slist* headers_ = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const Endpoint& endpoint) {
  if (::curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    return absl::InternalError("libcurl cannot be used");
  }
  return std::make_unique<CurlClient>(endpoint);
}

std::string Escape(absl::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string escaped;
  for (const char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-_.~", c)) {
      escaped += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      escaped += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return escaped;
}

}  // namespace jenkins_agent::nomad
