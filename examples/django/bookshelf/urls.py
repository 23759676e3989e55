from django.contrib import admin
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from bookshelf.models import Book


@csrf_exempt
def books(request):
    if request.method == "POST":
        Book.objects.create(title=request.POST["title"])
    return JsonResponse({"books": list(Book.objects.values_list("title", flat=True))})


def version(request):
    return HttpResponse("one\n")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("books", books),
    path("version", version),
]
