"""The models of the app; after a change: python manage.py makemigrations main"""
