#include <curl/curl.h>

// Swift can't call functions with a variable number of arguments: each kind that is needed, by
// name.

static inline CURLcode curl_set_number(CURL* handle, CURLoption option, long value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode curl_set_text(CURL* handle, CURLoption option, const char* value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode curl_set_headers(CURL* handle, struct curl_slist* headers) {
  return curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
}

// What is called with the head, with the body and now and then, all with one context.
static inline void curl_set_callbacks(CURL* handle, void* context, curl_write_callback head,
                                      curl_write_callback body, curl_xferinfo_callback progress) {
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, head);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, context);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, body);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, context);
  curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, progress);
  curl_easy_setopt(handle, CURLOPT_XFERINFODATA, context);
  curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
}

static inline long curl_status(CURL* handle) {
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

// Of the body, as the server announces it; -1 if it doesn't.
static inline curl_off_t curl_content_length(CURL* handle) {
  curl_off_t length = -1;
  curl_easy_getinfo(handle, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  return length;
}
